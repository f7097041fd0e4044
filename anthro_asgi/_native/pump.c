/* The types `Pump`, the protocol of an upstream's transport while a stream continues as its template says, and `Thread`,
   to which a pump can leave the two sockets instead.

   See `__init__.py` for what they are for, `convert.h` for the conversion, and `thread.h` for the thread. This file is
   the glue to Python: it uses the stable ABI of CPython 3.11 only. A build with the headers of a newer CPython must run on 3.11 too, so two things are
   not used: formats with `#`, which 3.11 refuses after a build with 3.13, and `Py_RETURN_NONE`, which counts no
   reference in headers since 3.12.

   Rules that keep it safe. The bytes of the template are copied in `arm`. No pointer into a Python object is kept after
   the call that received it, or used after a call of Python code. Python code may call `disarm` at any time, also from
   within a call of this file, so each function holds its own references to what it calls. No Python code runs, and no
   object is created or released, while the mutex of a thread is held: it may release a pump, which takes the mutex. */

#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <structmember.h>

#include "thread.h"

enum {
    MAX_UNSENT = 16384,   /* bytes in the client's transport; with more, Python waits for the client */
    SYNC_EVERY = 32,      /* writes after which Python is told */
    INTERFACE = 2,        /* see __init__.py */
};

/* clang-format off */
typedef struct {
    PyObject_HEAD
    Thread *thread;      /* NULL when it is closed */
    Py_ssize_t pumps;    /* that have left a stream to it, or have not taken it back yet */
} ThreadObject;

typedef struct {
    PyObject_HEAD
    PyObject *owner;     /* see `Owner` in __init__.py; NULL when the pump is not armed */
    PyObject *time;      /* () -> float: the clock of the event loop, in seconds; NULL for CLOCK_MONOTONIC */
    PyObject *write;     /* (bytes) -> None: of the client's transport */
    PyObject *unsent;    /* () -> int: its get_write_buffer_size */
    PyObject *closing;   /* () -> bool: its is_closing */
    int fd;              /* of its socket; -1 if it does more than to pass bytes on, as TLS does */
    int may_wait;        /* whether bytes may wait in the client's transport */
    Byte *storage;       /* the bytes that `template` points into */
    Template template;
    Buffer tail;         /* an incomplete chunk */
    Buffer counts;       /* of the latest event */
    int is_input;        /* whether the texts are the arguments of a call */
    Input input;         /* its `text` has what was read since the last `take_input` */
    Py_ssize_t silent;   /* since the last `take_input` */
    Py_ssize_t deltas;   /* since the last `take` */
    double *times;       /* SYNC_EVERY, of the writes since the last `take`; NULL before the first one */
    int writes;
    int reads_left;      /* until the speed is measured again */
    int is_fast;
    double measured;     /* when the speed was last measured */
    double last_read;    /* when the last bytes arrived */
    ThreadObject *keeper; /* has the two sockets; NULL while the transport's events come to the pump */
    Stream *stream;      /* what a thread has done, and does while `keeper` is set; NULL if none was ever asked */
    Buffer taken;        /* the text in `input` at the last `take`; `input` is the thread's */
} Pump;
/* clang-format on */

static PyObject *name_hand_back, *name_sync, *name_slow_down, *name_connection_lost, *name_eof_received,
    *name_pause_writing, *name_resume_writing;

/* ---- calls of Python code */

/* Call `function` without arguments. Returns a new reference; NULL with an exception, also if `function` is NULL. */
static PyObject *call(PyObject *function) {
    if (function == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pump is not armed");
        return NULL;
    }
    Py_INCREF(function);
    PyObject *value = PyObject_CallNoArgs(function);
    Py_DECREF(function);
    return value;
}

/* Call a method of the owner, with `argument` unless that is NULL. Returns a new reference; NULL with an exception. */
static PyObject *tell(Pump *self, PyObject *name, PyObject *argument) {
    PyObject *owner = self->owner;
    if (owner == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pump is not armed");
        return NULL;
    }
    Py_INCREF(owner);
    PyObject *value = PyObject_CallMethodObjArgs(owner, name, argument, NULL);
    Py_DECREF(owner);
    return value;
}

static int read_clock(Pump *self, double *now) {
    if (self->time == NULL) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        *now = (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
        return 0;
    }
    PyObject *value = call(self->time);
    if (value == NULL) return -1;
    *now = PyFloat_AsDouble(value);
    Py_DECREF(value);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* The number of bytes that wait in the client's transport; CLOSED if it is closed, ERROR with an exception.

   While the pump is armed, nothing but the pump writes to the transport. So once it is empty it stays empty, until the
   pump writes to it and not to the socket. */
enum { CLOSED = -1, ERROR = -2 };

static Py_ssize_t client_backlog(Pump *self) {
    PyObject *value = call(self->closing);
    if (value == NULL) return ERROR;
    int closing = PyObject_IsTrue(value);
    Py_DECREF(value);
    if (closing != 0) return closing < 0 ? ERROR : CLOSED;
    if (!self->may_wait) return 0;
    value = call(self->unsent);
    if (value == NULL) return ERROR;
    Py_ssize_t unsent = PyLong_AsSsize_t(value);
    Py_DECREF(value);
    if (unsent == -1 && PyErr_Occurred()) return ERROR;
    self->may_wait = unsent != 0;
    return unsent;
}

/* ---- one read */

/* Give the bytes that wait, and `size` bytes of `data`, back to Python. */
static PyObject *hand_back(Pump *self, const Byte *data, size_t size) {
    Buffer *tail = &self->tail;
    PyObject *rest;
    if (tail->size == 0) {
        rest = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    } else {
        if (!buffer_add(tail, data, size)) return PyErr_NoMemory();
        rest = PyBytes_FromStringAndSize((const char *)tail->data, (Py_ssize_t)tail->size);
        tail->size = 0;
    }
    if (rest == NULL) return NULL;
    PyObject *value = tell(self, name_hand_back, rest);
    Py_DECREF(rest);
    return value;
}

/* Write to the client: to the socket while nothing waits in the transport, else to the transport. The transport also
   gets what the socket does not take, and learns of errors by itself. -1 with an exception. */
static int write_client(Pump *self, Bytes chunk, Py_ssize_t backlog) {
    if (self->fd >= 0 && backlog == 0) {
        ssize_t sent = send(self->fd, chunk.data, chunk.size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            chunk.data += sent;
            chunk.size -= (size_t)sent;
        }
        if (chunk.size == 0) return 0;
    }
    PyObject *write = self->write;
    if (write == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pump is not armed");
        return -1;
    }
    PyObject *rest = PyBytes_FromStringAndSize((const char *)chunk.data, (Py_ssize_t)chunk.size);
    if (rest == NULL) return -1;
    self->may_wait = 1;
    Py_INCREF(write);
    PyObject *value = PyObject_CallFunctionObjArgs(write, rest, NULL);
    Py_DECREF(write);
    Py_DECREF(rest);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* Note what was converted, and whether a chunk was written for it. -1 with an exception. */
static int note_deltas(Pump *self, const Result *result, int written, double now) {
    self->deltas += (Py_ssize_t)result->deltas;
    self->silent += (Py_ssize_t)result->silent;
    if (written && self->writes < SYNC_EVERY) {
        if (self->times == NULL && (self->times = malloc(SYNC_EVERY * sizeof *self->times)) == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->times[self->writes++] = now;
    }
    if ((self->writes < SYNC_EVERY && self->input.text.size < SYNC_INPUT) || self->owner == NULL) return 0;
    PyObject *value = tell(self, name_sync, NULL);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* Measure the speed, and make reads less frequent while it is high. -1 with an exception. */
static int note_read(Pump *self, double now) {
    self->last_read = now;
    if (--self->reads_left == 0) {
        self->reads_left = FAST_READS;
        self->is_fast = now - self->measured < FAST;
        self->measured = now;
    }
    if (!self->is_fast || self->owner == NULL) return 0;
    PyObject *value = tell(self, name_slow_down, NULL);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

static PyObject *receive(Pump *self, PyObject *argument) {
    char *bytes;
    Py_ssize_t length;
    double now;
    if (PyBytes_AsStringAndSize(argument, &bytes, &length) < 0) return NULL;
    if (self->owner == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pump is not armed");
        return NULL;
    }
    const Byte *data = (const Byte *)bytes;
    size_t size = (size_t)length;
    Py_ssize_t backlog = client_backlog(self);
    if (backlog == ERROR || read_clock(self, &now) < 0) return NULL;
    self->last_read = now;
    if (backlog == CLOSED || backlog > MAX_UNSENT) return hand_back(self, data, size);

    /* With a tail, both are one piece of memory, which belongs to this call. */
    Buffer joined = {NULL, 0, 0};
    if (self->tail.size != 0) {
        joined = self->tail;
        self->tail = (Buffer){NULL, 0, 0};
        if (!buffer_add(&joined, data, size)) {
            buffer_free(&joined);
            return PyErr_NoMemory();
        }
        data = joined.data;
        size = joined.size;
    }
    Outcome outcome;
    Result result;
    Buffer events = {NULL, 0, 0};
    Bytes chunk;
    PyObject *value = NULL;
    Input *input = self->is_input ? &self->input : NULL;
    if (!convert_read(&self->template, input, data, size, &outcome, &result, &events, &chunk, &self->counts)) {
        PyErr_NoMemory();
        goto done;
    }
    if (chunk.size != 0 && write_client(self, chunk, backlog) < 0) goto done;
    if (result.deltas != 0 && note_deltas(self, &result, chunk.size != 0, now) < 0) goto done;
    data += result.consumed;
    size -= result.consumed;
    if (size == 0 && self->owner == NULL) { /* disarmed by the code that was called, with nothing left to hand back */
        value = Py_NewRef(Py_None);
        goto done;
    }
    if (outcome == OTHER || size > MAX_TAIL || self->owner == NULL) {
        value = hand_back(self, data, size);
        goto done;
    }
    if (size != 0 && !buffer_add(&self->tail, data, size)) {
        PyErr_NoMemory();
        goto done;
    }
    if (note_read(self, now) == 0) value = Py_NewRef(Py_None);
done:
    buffer_free(&events);
    buffer_free(&joined);
    return value;
}

static PyObject *Pump_data_received(PyObject *self, PyObject *data) {
    Py_INCREF(self); /* the transport lets go of the pump as soon as another protocol is set */
    PyObject *value = receive((Pump *)self, data);
    Py_DECREF(self);
    return value;
}

/* ---- the other events of the transport: Python's */

/* Give back what waits, and then tell the owner. */
static PyObject *forward(Pump *self, PyObject *name, PyObject *argument) {
    PyObject *value;
    if (self->tail.size != 0) {
        PyObject *owner = self->owner;
        Py_XINCREF(owner);
        value = hand_back(self, NULL, 0);
        if (value != NULL && owner != NULL) {
            Py_DECREF(value);
            value = PyObject_CallMethodObjArgs(owner, name, argument, NULL);
        }
        Py_XDECREF(owner);
    } else {
        value = tell(self, name, argument);
    }
    return value;
}

static PyObject *Pump_connection_lost(PyObject *self, PyObject *error) {
    Py_INCREF(self);
    PyObject *value = forward((Pump *)self, name_connection_lost, error);
    Py_DECREF(self);
    return value;
}

static PyObject *Pump_eof_received(PyObject *self, PyObject *unused) {
    (void)unused;
    Py_INCREF(self);
    PyObject *value = forward((Pump *)self, name_eof_received, NULL);
    Py_DECREF(self);
    return value;
}

static PyObject *Pump_pause_writing(PyObject *self, PyObject *unused) {
    (void)unused;
    return tell((Pump *)self, name_pause_writing, NULL);
}

static PyObject *Pump_resume_writing(PyObject *self, PyObject *unused) {
    (void)unused;
    return tell((Pump *)self, name_resume_writing, NULL);
}

/* ---- arming, and what Python asks */

static Bytes stored(Byte **to, const char *data, Py_ssize_t size) {
    Bytes bytes = {*to, (size_t)size};
    if (size != 0) memcpy(*to, data, (size_t)size);
    *to += size;
    return bytes;
}

static PyObject *Pump_arm(PyObject *object, PyObject *arguments) {
    Pump *self = (Pump *)object;
    PyObject *given[5], *place = NULL;
    char *data[5], *letters = NULL;
    Py_ssize_t size[5], max_event, letters_size = 0;
    if (self->keeper != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a thread uses the template");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "SSSSSn|S:arm", &given[0], &given[1], &given[2], &given[3], &given[4], &max_event,
                          &place))
        return NULL;
    if (place != NULL && PyBytes_AsStringAndSize(place, &letters, &letters_size) < 0) return NULL;
    size_t total = 0;
    for (int i = 0; i < 5; i++) {
        if (PyBytes_AsStringAndSize(given[i], &data[i], &size[i]) < 0) return NULL;
        if (size[i] > MAX_CHUNK || max_event < 0) {
            PyErr_SetString(PyExc_ValueError, "the template is too large");
            return NULL;
        }
        total += (size_t)size[i];
    }
    if (size[0] == 0 || size[1] == 0 || (size[2] != 0 && memchr(data[2], '\\', (size_t)size[2]) != NULL)) {
        PyErr_SetString(PyExc_ValueError, "not a template that the pump can use");
        return NULL;
    }
    if (letters_size != 0 && !json_begin(&self->input.json, (const Byte *)letters, (size_t)letters_size)) {
        PyErr_SetString(PyExc_ValueError, "not a place in the arguments of a call");
        return NULL;
    }
    self->is_input = letters_size != 0;
    Byte *storage = malloc(total);
    if (storage == NULL) return PyErr_NoMemory();
    free(self->storage);
    self->storage = storage;
    Template *template = &self->template;
    template->before = stored(&storage, data[0], size[0]);
    template->after = stored(&storage, data[1], size[1]);
    template->numberless = stored(&storage, data[2], size[2]);
    template->opening = stored(&storage, data[3], size[3]);
    template->closing = stored(&storage, data[4], size[4]);
    template->max_event = (size_t)max_event;
    return Py_NewRef(Py_None);
}

static PyObject *Pump_convert(PyObject *object, PyObject *argument) {
    Pump *self = (Pump *)object;
    char *bytes;
    Py_ssize_t length;
    Outcome outcome;
    Result result;
    Bytes chunk;
    Buffer events = {NULL, 0, 0}, counts = {NULL, 0, 0};
    Input input = {self->input.json, {NULL, 0, 0}}; /* a copy */
    if (PyBytes_AsStringAndSize(argument, &bytes, &length) < 0) return NULL;
    if (self->storage == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pump has no template");
        return NULL;
    }
    PyObject *value = NULL;
    if (!convert_read(&self->template, self->is_input ? &input : NULL, (const Byte *)bytes, (size_t)length, &outcome,
                      &result, &events, &chunk, &counts))
        PyErr_NoMemory();
    else
        value = Py_BuildValue("nNnNO", (Py_ssize_t)result.consumed,
                              PyBytes_FromStringAndSize((const char *)chunk.data, (Py_ssize_t)chunk.size),
                              (Py_ssize_t)result.deltas,
                              PyBytes_FromStringAndSize((const char *)counts.data, (Py_ssize_t)counts.size),
                              outcome == OTHER ? Py_False : Py_True);
    buffer_free(&events);
    buffer_free(&counts);
    buffer_free(&input.text);
    return value;
}

/* The times of `number` writes as a list. NULL with an exception. */
static PyObject *list_of(const double *times, size_t number) {
    PyObject *list = PyList_New((Py_ssize_t)number);
    for (size_t i = 0; list != NULL && i < number; i++) {
        PyObject *time = PyFloat_FromDouble(times[i]);
        if (time == NULL || PyList_SetItem(list, (Py_ssize_t)i, time) < 0) Py_CLEAR(list);
    }
    return list;
}

/* What the thread has done since the last time: the same as `Pump_take` returns. */
static PyObject *take_from_thread(Pump *self) {
    Stream *stream = self->stream;
    Thread *thread = self->keeper == NULL ? NULL : self->keeper->thread;
    Buffer times = {NULL, 0, 0}, counts = {NULL, 0, 0};
    size_t deltas = 0;
    if (thread != NULL) thread_lock(thread);
    int copied = buffer_add(&times, stream->times, stream->writes * sizeof *stream->times) &&
                 buffer_add(&counts, stream->counts.data, stream->counts.size) &&
                 buffer_add(&self->taken, self->input.text.data, self->input.text.size);
    if (copied) {
        deltas = stream->deltas;
        self->silent += (Py_ssize_t)stream->silent;
        stream->deltas = stream->silent = stream->writes = stream->counts.size = self->input.text.size = 0;
    }
    if (thread != NULL) thread_unlock(thread);
    PyObject *value = NULL;
    if (!copied)
        PyErr_NoMemory();
    else
        value = Py_BuildValue("nNN", (Py_ssize_t)deltas,
                              PyBytes_FromStringAndSize((const char *)counts.data, (Py_ssize_t)counts.size),
                              list_of((const double *)(const void *)times.data, times.size / sizeof(double)));
    buffer_free(&times);
    buffer_free(&counts);
    return value;
}

static PyObject *Pump_take(PyObject *object, PyObject *unused) {
    (void)unused;
    Pump *self = (Pump *)object;
    if (self->stream != NULL) return take_from_thread(self);
    PyObject *value = Py_BuildValue(
        "nNN", self->deltas, PyBytes_FromStringAndSize((const char *)self->counts.data, (Py_ssize_t)self->counts.size),
        list_of(self->times, (size_t)self->writes));
    if (value != NULL) {
        self->deltas = 0;
        self->writes = 0;
        self->counts.size = 0;
    }
    return value;
}

static PyObject *Pump_take_input(PyObject *object, PyObject *unused) {
    (void)unused;
    Pump *self = (Pump *)object;
    Buffer *text = self->stream != NULL ? &self->taken : &self->input.text;
    PyObject *value = Py_BuildValue(
        "Nn", PyUnicode_DecodeUTF8((const char *)text->data, (Py_ssize_t)text->size, NULL), self->silent);
    if (value != NULL) {
        text->size = 0;
        self->silent = 0;
    }
    return value;
}

static PyObject *Pump_last_read(PyObject *object, void *unused) {
    (void)unused;
    Pump *self = (Pump *)object;
    double time = self->last_read;
    if (self->keeper != NULL) {
        thread_lock(self->keeper->thread);
        time = self->stream->last_read;
        thread_unlock(self->keeper->thread);
    }
    return PyFloat_FromDouble(time);
}

/* Take the stream back from the thread, if it is there. */
static void leave_thread(Pump *self) {
    ThreadObject *keeper = self->keeper;
    if (keeper == NULL) return;
    thread_remove(keeper->thread, self->stream);
    self->last_read = self->stream->last_read;
    self->keeper = NULL;
    keeper->pumps--;
    Py_DECREF((PyObject *)keeper);
}

static int Pump_clear(PyObject *object) {
    Pump *self = (Pump *)object;
    leave_thread(self);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->time);
    Py_CLEAR(self->write);
    Py_CLEAR(self->unsent);
    Py_CLEAR(self->closing);
    return 0;
}

/* Let the client's transport write what its socket did not take. -1 with an exception. */
static int write_rest(Pump *self) {
    Buffer *unsent = &self->stream->unsent;
    if (unsent->size == 0 || self->closing == NULL) return 0;
    PyObject *value = call(self->closing);
    if (value == NULL) return -1;
    int closing = PyObject_IsTrue(value);
    Py_DECREF(value);
    if (closing != 0) return closing < 0 ? -1 : 0;
    Bytes rest = {unsent->data, unsent->size};
    unsent->size = 0;
    return write_client(self, rest, 1);
}

static PyObject *Pump_disarm(PyObject *object, PyObject *unused) {
    (void)unused;
    Pump *self = (Pump *)object;
    leave_thread(self);
    int failed = self->stream != NULL && write_rest(self) < 0;
    Buffer *tail = self->stream != NULL ? &self->stream->tail : &self->tail;
    PyObject *rest = failed ? NULL : PyBytes_FromStringAndSize((const char *)tail->data, (Py_ssize_t)tail->size);
    if (rest != NULL) buffer_free(tail);
    Pump_clear(object);
    return rest;
}

/* ---- the thread */

static PyTypeObject *thread_type; /* of the module; this reference is never released */

static PyObject *Pump_leave_to(PyObject *object, PyObject *arguments) {
    Pump *self = (Pump *)object;
    PyObject *given;
    int upstream;
    if (!PyArg_ParseTuple(arguments, "O!i:leave_to", thread_type, &given, &upstream)) return NULL;
    ThreadObject *keeper = (ThreadObject *)given;
    if (keeper->thread == NULL || self->owner == NULL || self->storage == NULL || self->stream != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the thread is closed, or the pump is not armed or in use");
        return NULL;
    }
    if (self->time != NULL || self->fd < 0 || self->tail.size != 0) {
        PyErr_SetString(PyExc_ValueError, "a thread needs CLOCK_MONOTONIC, two sockets, and a whole chunk");
        return NULL;
    }
    Stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return PyErr_NoMemory();
    stream->template = &self->template;
    stream->input = self->is_input ? &self->input : NULL;
    stream->pump = self;
    if (!thread_add(keeper->thread, stream, upstream, self->fd)) {
        free_stream(stream);
        return Py_NewRef(Py_False);
    }
    self->stream = stream;
    self->keeper = (ThreadObject *)Py_NewRef(given);
    keeper->pumps++;
    return Py_NewRef(Py_True);
}

static int Thread_init(PyObject *object, PyObject *arguments, PyObject *keywords) {
    ThreadObject *self = (ThreadObject *)object;
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, ":Thread", names)) return -1;
    if (self->thread != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the thread is running");
        return -1;
    }
    self->thread = thread_start();
    if (self->thread != NULL) return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static PyObject *closed_thread(void) {
    PyErr_SetString(PyExc_ValueError, "the thread is closed");
    return NULL;
}

static PyObject *Thread_fileno(PyObject *object, PyObject *unused) {
    (void)unused;
    ThreadObject *self = (ThreadObject *)object;
    return self->thread == NULL ? closed_thread() : PyLong_FromLong(self->thread->notify);
}

static PyObject *Thread_collect(PyObject *object, PyObject *unused) {
    (void)unused;
    ThreadObject *self = (ThreadObject *)object;
    if (self->thread == NULL) return closed_thread();
    thread_notices(self->thread);
    while (self->thread != NULL) { /* the code that is called may close it */
        int is_returned;
        Stream *stream = thread_notice(self->thread, &is_returned);
        if (stream == NULL) break;
        Pump *pump = stream->pump;
        Py_INCREF((PyObject *)pump);
        PyObject *value = is_returned ? hand_back(pump, NULL, 0) : tell(pump, name_sync, NULL);
        Py_DECREF((PyObject *)pump);
        if (value == NULL) { /* the others are told in the next call */
            if (self->thread != NULL) ring(self->thread->notify);
            return NULL;
        }
        Py_DECREF(value);
    }
    return Py_NewRef(Py_None);
}

static PyObject *Thread_close(PyObject *object, PyObject *unused) {
    (void)unused;
    ThreadObject *self = (ThreadObject *)object;
    if (self->pumps != 0) {
        PyErr_SetString(PyExc_RuntimeError, "a pump uses it");
        return NULL;
    }
    if (self->thread != NULL) thread_end(self->thread);
    self->thread = NULL;
    return Py_NewRef(Py_None);
}

static void Thread_dealloc(PyObject *object) {
    ThreadObject *self = (ThreadObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->thread != NULL) thread_end(self->thread);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* ---- the type */

static int Pump_init(PyObject *object, PyObject *arguments, PyObject *keywords) {
    Pump *self = (Pump *)object;
    PyObject *owner, *time, *write, *unsent, *closing;
    int fd;
    static char *names[] = {"owner", "time", "write", "unsent", "closing", "fd", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOOOi:Pump", names, &owner, &time, &write, &unsent, &closing,
                                     &fd))
        return -1;
    Pump_clear(object);
    self->owner = Py_NewRef(owner);
    self->time = time == Py_None ? NULL : Py_NewRef(time);
    self->write = Py_NewRef(write);
    self->unsent = Py_NewRef(unsent);
    self->closing = Py_NewRef(closing);
    self->fd = fd;
    self->may_wait = 1;
    self->reads_left = FAST_READS;
    self->is_fast = 0;
    if (read_clock(self, &self->measured) < 0) return -1;
    self->last_read = self->measured;
    return 0;
}

static int Pump_traverse(PyObject *object, visitproc visit, void *arg) {
    Pump *self = (Pump *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->owner);
    Py_VISIT(self->time);
    Py_VISIT(self->write);
    Py_VISIT(self->unsent);
    Py_VISIT(self->closing);
    return 0;
}

static void Pump_dealloc(PyObject *object) {
    Pump *self = (Pump *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Pump_clear(object);
    if (self->stream != NULL) free_stream(self->stream);
    free(self->storage);
    free(self->times);
    buffer_free(&self->tail);
    buffer_free(&self->counts);
    buffer_free(&self->input.text);
    buffer_free(&self->taken);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* It reads on everywhere in the arguments of a call. Without a place (b""), they cannot be read on. */
static PyObject *Pump_may_begin(PyObject *unused, PyObject *place) {
    (void)unused;
    Py_ssize_t size = PyBytes_Size(place);
    return size < 0 ? NULL : PyBool_FromLong(size != 0);
}

static PyMethodDef methods[] = {
    {"may_begin", Pump_may_begin, METH_O | METH_STATIC, NULL},
    {"data_received", Pump_data_received, METH_O, NULL},
    {"connection_lost", Pump_connection_lost, METH_O, NULL},
    {"eof_received", Pump_eof_received, METH_NOARGS, NULL},
    {"pause_writing", Pump_pause_writing, METH_NOARGS, NULL},
    {"resume_writing", Pump_resume_writing, METH_NOARGS, NULL},
    {"arm", Pump_arm, METH_VARARGS, NULL},
    {"convert", Pump_convert, METH_O, NULL},
    {"take", Pump_take, METH_NOARGS, NULL},
    {"take_input", Pump_take_input, METH_NOARGS, NULL},
    {"disarm", Pump_disarm, METH_NOARGS, NULL},
    {"leave_to", Pump_leave_to, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"last_read", Pump_last_read, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, PyType_GenericNew},     {Py_tp_init, Pump_init},       {Py_tp_dealloc, Pump_dealloc},
    {Py_tp_traverse, Pump_traverse},    {Py_tp_clear, Pump_clear},     {Py_tp_methods, methods},
    {Py_tp_getset, attributes},         {0, NULL},
};

static PyType_Spec spec = {
    .name = "anthro_asgi._native._pump.Pump",
    .basicsize = sizeof(Pump),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static PyMethodDef thread_methods[] = {
    {"fileno", Thread_fileno, METH_NOARGS, NULL},
    {"collect", Thread_collect, METH_NOARGS, NULL},
    {"close", Thread_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef thread_members[] = {
    {"pumps", T_PYSSIZET, offsetof(ThreadObject, pumps), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot thread_slots[] = {
    {Py_tp_new, PyType_GenericNew},     {Py_tp_init, Thread_init},       {Py_tp_dealloc, Thread_dealloc},
    {Py_tp_methods, thread_methods},    {Py_tp_members, thread_members}, {0, NULL},
};

static PyType_Spec thread_spec = {
    .name = "anthro_asgi._native._pump.Thread",
    .basicsize = sizeof(ThreadObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = thread_slots,
};

static int run(PyObject *module) {
    struct {
        PyObject **to;
        const char *text;
    } names[] = {
        {&name_hand_back, "hand_back"},
        {&name_sync, "sync"},
        {&name_slow_down, "slow_down"},
        {&name_connection_lost, "connection_lost"},
        {&name_eof_received, "eof_received"},
        {&name_pause_writing, "pause_writing"},
        {&name_resume_writing, "resume_writing"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (*names[i].to == NULL && (*names[i].to = PyUnicode_InternFromString(names[i].text)) == NULL) return -1;
    if (thread_type == NULL) {
        thread_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &thread_spec, NULL);
        if (thread_type == NULL) return -1;
    }
    if (PyModule_AddObjectRef(module, "Thread", (PyObject *)thread_type) < 0) return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL) return -1;
    int failed = PyModule_AddObjectRef(module, "Pump", type);
    Py_DECREF(type);
    return failed < 0 ? failed : PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, run}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_pump",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__pump(void) { return PyModuleDef_Init(&definition); }
