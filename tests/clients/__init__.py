"""Real clients against the service: Claude Code, SDKs and agent libraries, with a scripted engine behind it.

    python -m tests.clients [WORD …]      install what is missing into .clients/, then run the scenarios

A scenario plays one or more faults of an engine that users reported, and passes when the client's session survives
them. Other scenarios show what the service does beside the engine: compaction, tool search, web search, PDFs, several
engines, and replicas of an engine behind Envoy. The runs happen in a network namespace that has only a loopback
interface, so that no client can reach another host.

    faults     the table of the faults; each has a scenario
    install    the npm and PyPI packages, with their versions
    namespace  starts a command without a network
    engine     a scripted engine in a thread: a function from a chat request to the bytes of its answer
    window     such an engine with a context window of 32 768 tokens
    scenario   the service before such an engine, and plays that many scenarios use
    claude     runs `claude -p` and reads its result
    mcp_server an MCP server with 40 tools, which Claude Code starts
    searxng    a search engine with the JSON of SearXNG
    client     runs a client library: a driver of `drivers`, in a process of its own
    drivers    one program for each client library
    sdk_tests  the tests of Anthropic's SDK for Python, against this service
"""
