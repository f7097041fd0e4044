"""Programs that drive one client library each. They run with the libraries of `.clients/`, not with those of the tests.

A driver reads tasks from standard input and writes outcomes to standard output: one JSON object a line. `lines` holds
that protocol and the two tools that every driver offers. `tests.clients.client` starts the drivers.

    field of a task     meaning
    url                 the service
    prompt              the user's first message
    stream              whether the client asks for streams
    structured          whether the last answer is to be a Report
    tools               the names of the tools to offer; without it, `weather`

    field of an outcome
    text                the text of the last answer
    calls               the calls that the client executed: {"name": …, "input": …}
    structured          the Report as the client parsed it
    error               {"kind": class, "status": …, "message": …} of the exception that ended the task

Some drivers take further fields: see their docstrings.
"""
