/* Mutated streams through the thread of `thread.h`, without Python: for each of the three sanitizers.

   usage: native_thread COUNT SECONDS SEED       ends after COUNT streams or SECONDS seconds, whichever comes first

   The main thread plays everybody but the thread under test, one random step of a random stream after the other, with
   hundreds of streams at once over socket pairs and TCP. The engine writes a stream of `native_stream.h` in pieces that are
   cut at random, and ends it, perhaps early, with an end or a reset. The client reads at random moments, slowly, or leaves.
   The event loop takes what the thread reports, and converts what it returns. It also takes streams back at random, gives
   them again, sends pings, aborts, and closes its sockets while the thread has them. The thread itself gets short reads
   and writes.

   The oracle is the conversion of the whole stream, chunk by chunk. The client must have exactly these events, with the pings
   between them and in whole chunks. What was not converted must be what the oracle left. The deltas that were counted must
   be the oracle's. Of a stream that was broken off, the client must have a beginning. In every third round, memory, epoll
   and descriptors fail at random: then each stream may break off. After a round no descriptor is left open. Prints a
   summary; exit status 1 for a breach. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void *failing_realloc(void *block, size_t size);
#define realloc failing_realloc
#include "../../../anthro_asgi/_native/convert.h"
#undef realloc

#include "native_stream.h"

/* ---- what the thread calls: fails and is short at random */

static atomic_int breaks;         /* whether calls fail that take something from the system */
static _Thread_local int is_ours; /* not the thread of `thread.h` */
static _Thread_local int is_adding; /* in `thread_add` */

static int fails(size_t rarely) { return (!is_ours || is_adding) && atomic_load(&breaks) && below(rarely) == 0; }

static void *failing_realloc(void *block, size_t size) { return fails(12) ? NULL : realloc(block, size); }

static void *failing_malloc(size_t size) { return fails(12) ? NULL : malloc(size); }

static int failing_dup(int fd, int command, int least) {
    if (fails(20)) {
        errno = EMFILE;
        return -1;
    }
    return fcntl(fd, command, least);
}

static int failing_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    if (operation != EPOLL_CTL_DEL && fails(20)) {
        errno = ENOMEM;
        return -1;
    }
    return epoll_ctl(epoll, operation, fd, event);
}

static ssize_t short_recv(int fd, void *data, size_t size, int flags) {
    if (below(50) == 0) {
        errno = below(2) ? EAGAIN : EINTR;
        return -1;
    }
    return recv(fd, data, below(10) == 0 ? 1 + below(100) : size, flags);
}

static ssize_t short_send(int fd, const void *data, size_t size, int flags) {
    if (below(100) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return send(fd, data, below(50) == 0 ? 1 + below(size) : size, flags);
}

#define realloc failing_realloc
#define malloc failing_malloc
#define fcntl failing_dup
#define epoll_ctl failing_epoll_ctl
#define recv short_recv
#define send short_send
#include "../../../anthro_asgi/_native/thread.h"
#undef realloc
#undef malloc
#undef fcntl
#undef epoll_ctl
#undef recv
#undef send

/* ---- streams */

enum {
    STREAMS = 200,    /* at one time */
    FEW = 12,         /* in every fourth round, so that each is fast */
    ROUND = 2000,     /* streams with one thread */
    PATIENCE = 30,    /* seconds without the end of any stream */
    NEVER = 1 << 30,
};
static const Bytes ping = BYTES("event: ping\ndata: {\"type\": \"ping\"}\n\n");

typedef struct {
    unsigned long number;
    Drawn drawn;
    Buffer out; /* of the oracle */
    Result all; /* of the oracle */
    int is_tcp;
    int engine, up, down, client; /* -1 if closed */
    /* the engine */
    size_t written, end; /* of the stream, and where it ends it */
    size_t piece;        /* the most bytes it writes at once; 0: an HTTP chunk */
    int resets;          /* at the end */
    /* the client */
    size_t slowness, patience; /* reads one time in `slowness`; leaves after `patience` bytes */
    Buffer received;
    /* the event loop */
    Stream *stream; /* NULL while the event loop reads itself */
    Input input;
    Buffer text;   /* of the arguments that it has taken */
    Buffer unread; /* by the conversion */
    Buffer unsent; /* of the client's transport */
    Buffer counts;
    size_t deltas, pings;
    size_t abort_after; /* steps */
    int is_left_alone;  /* only reports of the thread make it take anything, so one that is missing is noticed */
    int is_over;        /* the engine has ended the stream */
    int is_broken;      /* the stream: the client, the engine or the event loop has broken it off */
} Wire;

static Wire wires[STREAMS];
static int playing[STREAMS]; /* their numbers in any order */
static unsigned long long seed;
static int listener;
static struct {
    size_t streams, mutated, broken, by_thread, by_loop, taken_back, pings;
} total;

static void fail(const Wire *wire, const char *what) {
    printf("FAILED: %s: stream %lu of seed %llu%s: %.*s\n", what, wire->number, seed,
           wire->drawn.is_input ? ", arguments" : "", (int)wire->end, (const char *)wire->drawn.data.data);
    exit(1);
}

static void drop(Buffer *buffer, size_t size) {
    if (size != 0) memmove(buffer->data, buffer->data + size, buffer->size - size);
    buffer->size -= size;
}

static void shut(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void reset(Wire *wire, int *fd) {
    struct linger linger = {1, 0};
    if (wire->is_tcp) setsockopt(*fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    shut(fd);
}

static void connect_pair(int is_tcp, int pair[2]) {
    if (!is_tcp) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) abort();
        return;
    }
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (getsockname(listener, (struct sockaddr *)&address, &size) < 0 || pair[0] < 0 ||
        connect(pair[0], (struct sockaddr *)&address, size) < 0 || (pair[1] = accept(listener, NULL, NULL)) < 0)
        abort();
}

/* What becomes of the first `end` bytes of the stream, read at once. */
static void ask_oracle(Wire *wire) {
    Input input;
    begin_input(&input);
    const Byte *at = wire->drawn.data.data, *end = at + wire->end;
    while (at < end) {
        const Byte *body;
        size_t size;
        Outcome outcome = chunk_size(at, end, &body, &size);
        if (outcome != ALL || (size_t)(end - body) < size + 2) break;
        Result result;
        size = (size_t)(body - at) + size + 2;
        outcome = run(wire->drawn.template, wire->drawn.is_input ? &input : NULL, at, size, &wire->out, &result);
        wire->all.deltas += result.deltas;
        wire->all.consumed += result.consumed;
        if (outcome != ALL) break;
        input.text.size = 0;
        at += size;
    }
    buffer_free(&input.text);
}

static void open_wire(Wire *wire, unsigned long number) {
    memset(wire, 0, sizeof *wire);
    wire->number = number;
    draw(seed, number, &wire->drawn);
    const Template *template = wire->drawn.template;
    Buffer *data = &wire->drawn.data;
    if (!wire->drawn.is_input && below(4) == 0) { /* a longer one: its mutations come after a steady beginning */
        Buffer steady = {NULL, 0, 0};
        for (size_t left = below(100) == 0 ? 400 : 1 + below(12); left != 0; left--) build(template, &steady, &wire->out);
        add(&steady, (Bytes){data->data, data->size});
        buffer_free(data);
        *data = steady;
        wire->out.size = 0;
    }
    wire->end = below(8) == 0 ? below(data->size + 1) : data->size;
    ask_oracle(wire);
    begin_input(&wire->input);
    static const size_t pieces[] = {0, 0, 0, 5, 40, 400, NEVER};
    wire->piece = pieces[below(sizeof pieces / sizeof *pieces)];
    if (wire->piece != 0 && data->size / wire->piece > 500) wire->piece = data->size / 500; /* else it takes seconds */
    wire->resets = below(10) == 0;
    static const size_t slowness[] = {1, 1, 2, 20, 60};
    wire->slowness = slowness[below(sizeof slowness / sizeof *slowness)];
    wire->patience = below(12) == 0 ? below(2000) : NEVER;
    wire->abort_after = below(25) == 0 ? below(100) : NEVER;
    wire->is_left_alone = below(4) == 0;
    wire->is_tcp = below(8) == 0;
    int pair[2], small = 1;
    connect_pair(wire->is_tcp, pair);
    wire->engine = pair[0];
    wire->up = pair[1];
    connect_pair(wire->is_tcp, pair);
    wire->client = pair[0];
    wire->down = pair[1];
    if (below(3) == 0) setsockopt(wire->down, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
}

/* ---- the engine, and the client */

static void engine_step(Wire *wire) {
    if (wire->engine < 0) return;
    const Byte *at = wire->drawn.data.data + wire->written, *end = wire->drawn.data.data + wire->end;
    size_t size = (size_t)(end - at);
    if (size == 0) {
        if (wire->resets) reset(wire, &wire->engine);
        else if (below(2)) shutdown(wire->engine, SHUT_WR);
        else if (!wire->is_tcp) shut(&wire->engine);
        wire->end = wire->written;
        if (wire->engine >= 0) shutdown(wire->engine, SHUT_WR);
        return;
    }
    if (wire->piece == 0) {
        const Byte *mark = memmem(at, size, "\n\n\r\n", 4);
        if (mark != NULL) size = (size_t)(mark + 4 - at);
    } else if (size > wire->piece) {
        size = 1 + below(wire->piece);
    }
    ssize_t sent = send(wire->engine, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) wire->written += (size_t)sent;
    else if (errno != EAGAIN) shut(&wire->engine); /* the event loop has closed its end, or failing memory has */
}

static void client_step(Wire *wire) {
    if (wire->client < 0 || below(wire->slowness) != 0) return;
    Byte data[4096];
    ssize_t size = recv(wire->client, data, 1 + below(sizeof data), MSG_DONTWAIT);
    if (size > 0) add(&wire->received, (Bytes){data, (size_t)size});
    if (wire->received.size >= wire->patience) {
        wire->is_broken = 1;
        if (below(2)) reset(wire, &wire->client);
        else shutdown(wire->client, SHUT_RDWR), wire->patience = NEVER;
    }
}

/* ---- the event loop */

static void flush(Wire *wire) {
    if (wire->unsent.size == 0) return;
    ssize_t sent = send(wire->down, wire->unsent.data, wire->unsent.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) drop(&wire->unsent, (size_t)sent);
    else if (sent < 0 && errno != EAGAIN) wire->is_broken = 1, wire->unsent.size = 0;
}

/* As the Python path: converts what it has. */
static void convert_unread(Wire *wire) {
    Outcome outcome;
    Result result;
    Buffer events = {NULL, 0, 0};
    Bytes chunk;
    Input *input = wire->drawn.is_input ? &wire->input : NULL;
    do { /* with many arguments, the conversion stops before a chunk that it converts in the next call */
        if (!convert_read(wire->drawn.template, input, wire->unread.data, wire->unread.size, &outcome, &result, &events,
                          &chunk, &wire->counts))
            abort();
        add(&wire->unsent, chunk);
        drop(&wire->unread, result.consumed);
        wire->deltas += result.deltas;
        total.by_loop += result.deltas;
        add(&wire->text, (Bytes){wire->input.text.data, wire->input.text.size});
        wire->input.text.size = 0;
    } while (result.consumed != 0);
    buffer_free(&events);
}

/* Take what the thread has noted. */
static void take(Thread *thread, Wire *wire, int inside) {
    Stream *stream = wire->stream;
    if (inside) thread_lock(thread);
    if ((stream->deltas > stream->silent) != (stream->writes != 0)) fail(wire, "deltas without a time");
    for (size_t i = 1; i < stream->writes; i++)
        if (stream->times[i] < stream->times[i - 1]) fail(wire, "times out of order");
    wire->deltas += stream->deltas;
    total.by_thread += stream->deltas;
    if (stream->counts.size != 0) {
        wire->counts.size = 0;
        add(&wire->counts, (Bytes){stream->counts.data, stream->counts.size});
    }
    add(&wire->text, (Bytes){wire->input.text.data, wire->input.text.size});
    stream->deltas = stream->silent = stream->writes = stream->counts.size = wire->input.text.size = 0;
    if (inside) thread_unlock(thread);
}

static void take_back(Thread *thread, Wire *wire) {
    Stream *stream = wire->stream;
    thread_remove(thread, stream);
    take(thread, wire, 0);
    add(&wire->unsent, (Bytes){stream->unsent.data, stream->unsent.size});
    add(&wire->unread, (Bytes){stream->tail.data, stream->tail.size});
    wire->stream = NULL;
    free_stream(stream);
    total.taken_back++;
}

static void give(Thread *thread, Wire *wire) {
    Stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) abort();
    stream->template = wire->drawn.template;
    stream->input = wire->drawn.is_input ? &wire->input : NULL;
    stream->pump = wire;
    is_adding = 1;
    int added = thread_add(thread, stream, wire->up, wire->down);
    is_adding = 0;
    if (added) wire->stream = stream;
    else free_stream(stream);
}

/* One step of a stream that the event loop has. */
static void own_step(Thread *thread, Wire *wire) {
    Byte data[8192];
    if (below(60) == 0) {
        char line[16];
        int size = snprintf(line, sizeof line, "%zx\r\n", ping.size);
        add(&wire->unsent, (Bytes){(const Byte *)line, (size_t)size});
        add(&wire->unsent, ping);
        add(&wire->unsent, (Bytes)BYTES("\r\n"));
        wire->pings++;
        total.pings++;
    }
    flush(wire);
    if (wire->unsent.size != 0 || wire->is_over || wire->is_broken) return;
    if (wire->unread.size == 0 && below(4) != 0) {
        give(thread, wire);
        return;
    }
    ssize_t size = recv(wire->up, data, 1 + below(sizeof data), MSG_DONTWAIT);
    if (size > 0) {
        add(&wire->unread, (Bytes){data, (size_t)size});
        convert_unread(wire);
    } else if (size == 0 || errno != EAGAIN) {
        wire->is_over = 1;
        if (size < 0 && wire->is_tcp) wire->is_broken = 1; /* a reset drops what the kernel had not delivered */
    }
}

static void collect(Thread *thread) {
    thread_notices(thread);
    int is_returned;
    Stream *stream;
    while ((stream = thread_notice(thread, &is_returned)) != NULL) {
        Wire *wire = stream->pump;
        if (!is_returned) {
            take(thread, wire, 1);
            continue;
        }
        take_back(thread, wire);
        if (wire->up >= 0) convert_unread(wire);
    }
}

static void loop_step(Thread *thread, Wire *wire) {
    if (wire->abort_after-- == 0) {
        wire->is_broken = 1;
        if (wire->stream != NULL && below(2)) { /* the event loop closes its sockets first: their numbers are used again */
            shut(&wire->up);
            shut(&wire->down);
            return;
        }
        if (wire->stream != NULL) take_back(thread, wire);
    }
    if (wire->stream != NULL) {
        if (below(wire->up < 0 ? 4 : 60) == 0 && !(wire->is_left_alone && wire->up >= 0)) {
            take_back(thread, wire);
            if (wire->up >= 0) convert_unread(wire);
        } else if (below(wire->is_left_alone ? 1000 : 10) == 0) {
            take(thread, wire, 1); /* as before a ping */
        }
    } else if (wire->up >= 0) {
        own_step(thread, wire);
    }
}

/* ---- the end of a stream */

static void read_rest(Wire *wire) {
    if (wire->down >= 0) shutdown(wire->down, SHUT_RDWR);
    shut(&wire->down);
    Byte data[65536];
    while (wire->client >= 0) {
        ssize_t size = recv(wire->client, data, sizeof data, 0);
        if (size <= 0) break;
        add(&wire->received, (Bytes){data, (size_t)size});
    }
}

/* The client's events and the number of pings, from whole chunks in the one form in which they are written. */
static void read_chunks(Wire *wire, Buffer *events, size_t *pings) {
    const Byte *at = wire->received.data, *end = at + wire->received.size;
    while (at < end) {
        const Byte *body;
        size_t size;
        Outcome outcome = chunk_size(at, end, &body, &size);
        if (outcome == OTHER || *at == '0') fail(wire, "not a chunk");
        if (outcome == ALL && (size_t)(end - body) >= size + 2) {
            if (memcmp(body + size, "\r\n", 2) != 0) fail(wire, "not the end of a chunk");
            if (size == ping.size && memcmp(body, ping.data, size) == 0) ++*pings;
            else add(events, (Bytes){body, size});
            at = body + size + 2;
            continue;
        }
        if (!wire->is_broken) fail(wire, "the last chunk is not whole");
        if (outcome == ALL) {
            size_t there = (size_t)(end - body) < size ? (size_t)(end - body) : size;
            if (size != ping.size || memcmp(body, ping.data, there) != 0) add(events, (Bytes){body, there});
        }
        return;
    }
}

static void check(Wire *wire) {
    const Template *template = wire->drawn.template;
    Buffer events = {NULL, 0, 0};
    size_t pings = 0;
    if (atomic_load(&breaks)) wire->is_broken = 1;
    read_chunks(wire, &events, &pings);
    size_t least = events.size < wire->out.size ? events.size : wire->out.size;
    if (least != 0 && memcmp(events.data, wire->out.data, least) != 0) fail(wire, "other events");
    if (events.size > wire->out.size) fail(wire, "more events than there are");
    if (pings > wire->pings) fail(wire, "more pings than were sent");
    if (!wire->is_broken) {
        size_t consumed = wire->end - wire->unread.size;
        if (pings != wire->pings) fail(wire, "a ping is missing");
        if (wire->unread.size != 0 && memcmp(wire->unread.data, wire->drawn.data.data + consumed, wire->unread.size) != 0)
            fail(wire, "other bytes are left");
        if (events.size != wire->out.size) fail(wire, "events are missing");
        if (consumed != wire->all.consumed) fail(wire, "more or less was read");
        if (wire->deltas != wire->all.deltas) fail(wire, "other deltas");
        if (wire->drawn.is_input) {
            Input input = {wire->input.json, wire->text};
            if (!is_complete(template, &input, &events)) fail(wire, "arguments are missing");
        }
        if (template->numberless.size != 0 && wire->deltas != 0) {
            const Byte *data = wire->drawn.data.data, *last = NULL;
            for (const Byte *at = data; (at = memmem(at, (size_t)(data + consumed - at), template->after.data,
                                                     template->after.size)) != NULL;)
                last = at += template->after.size;
            if (last == NULL || wire->counts.size == 0 || memcmp(last, wire->counts.data, wire->counts.size) != 0)
                fail(wire, "other counts");
        }
    }
    buffer_free(&events);
    total.streams++;
    total.mutated += (size_t)wire->drawn.is_mutated;
    total.broken += (size_t)wire->is_broken;
}

static void close_wire(Thread *thread, Wire *wire) {
    if (wire->stream != NULL) take_back(thread, wire);
    read_rest(wire);
    check(wire);
    if (wire->engine >= 0) reset(wire, &wire->engine);
    if (wire->client >= 0) reset(wire, &wire->client);
    shut(&wire->up);
    free_drawn(&wire->drawn);
    buffer_free(&wire->out);
    buffer_free(&wire->received);
    buffer_free(&wire->input.text);
    buffer_free(&wire->text);
    buffer_free(&wire->unread);
    buffer_free(&wire->unsent);
    buffer_free(&wire->counts);
}

/* ---- rounds */

static int is_finished(const Wire *wire) {
    if (wire->stream != NULL) return 0;
    return wire->is_broken || (wire->is_over && wire->unsent.size == 0);
}

static void play(Thread *thread, unsigned long first, unsigned long count, int most) {
    unsigned long next = first;
    int open = 0; /* the first ones of `playing` */
    size_t steps = 0;
    double late = monotonic() + PATIENCE;
    while (next < first + count || open != 0) {
        if (next < first + count && open < most) open_wire(&wires[playing[open++]], next++);
        int at = (int)below((size_t)open);
        Wire *wire = &wires[playing[at]];
        engine_step(wire);
        loop_step(thread, wire);
        client_step(wire);
        if (++steps % 16 == 0) {
            struct pollfd ready = {thread->notify, POLLIN, 0};
            if (poll(&ready, 1, 0) == 1 && below(3) != 0) collect(thread);
        }
        if (is_finished(wire)) {
            close_wire(thread, wire);
            int other = playing[--open];
            playing[open] = playing[at];
            playing[at] = other;
            late = monotonic() + PATIENCE;
        } else if (steps % 1024 == 0 && monotonic() > late) {
            fail(wire, "a stream hangs");
        }
    }
}

static size_t descriptors(void) {
    size_t found = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) abort();
    while (readdir(directory) != NULL) found++;
    closedir(directory);
    return found;
}

static void listen_anywhere(void) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) abort();
}

int main(int arguments, char **argument) {
    unsigned long count = arguments > 1 ? strtoul(argument[1], NULL, 10) : 10000;
    double seconds = arguments > 2 ? strtod(argument[2], NULL) : 1e9;
    seed = arguments > 3 ? strtoull(argument[3], NULL, 10) : 1;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) abort();
    limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) abort();
    is_ours = 1;
    for (int i = 0; i < STREAMS; i++) playing[i] = i;
    listen_anywhere();
    double until = monotonic() + seconds;
    size_t before = descriptors();
    for (unsigned long first = 0, round = 0; first < count && monotonic() < until; first += ROUND, round++) {
        atomic_store(&breaks, round % 3 == 2);
        Thread *thread = thread_start();
        if (thread == NULL) abort();
        unsigned long left = count - first;
        play(thread, first, left < ROUND ? left : ROUND, round % 4 == 3 ? FEW : STREAMS);
        if (thread->streams != 0 || thread->first_notice != NULL) {
            printf("FAILED: the thread has kept a stream\n");
            return 1;
        }
        thread_end(thread);
        if (descriptors() != before) {
            printf("FAILED: descriptors are left open\n");
            return 1;
        }
    }
    shut(&listener);
    printf("%zu streams, %zu of them mutated, %zu broken off; %zu deltas by the thread, %zu by the event loop; "
           "taken back %zu times; %zu pings\n",
           total.streams, total.mutated, total.broken, total.by_thread, total.by_loop, total.taken_back, total.pings);
    return total.by_thread == 0;
}
