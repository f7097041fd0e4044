/* Streams through the thread of `thread.h`, without Python: for ThreadSanitizer, or the other two sanitizers.

   usage: native_thread SECONDS SEED

   One thread is the engines: it writes the events of all streams in pieces that are cut at random, some of them spoiled.
   One is the clients: it reads what arrives, at random moments. The main thread is the event loop: it takes what the
   thread reports, converts what is returned as Python does, and takes streams back and gives them again at random. Each
   event has a number. At the end of a stream its client must have each number once and in order, and the deltas that
   were counted are as many. In every third round memory fails at random: then a stream may break off, but what its client
   has must be a beginning. Prints a summary; exit status 1 for a breach. */

#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local unsigned long long state = 1;

static size_t below(size_t limit) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state >> 16) % limit;
}

static _Thread_local int is_ours; /* not the thread of `thread.h` */
static atomic_int breaks;         /* in that thread, one `realloc` in ten fails */

static void *failing_realloc(void *block, size_t size) {
    return !is_ours && atomic_load(&breaks) && below(10) == 0 ? NULL : realloc(block, size);
}

#define realloc failing_realloc
#include "../../../anthro_asgi/_native/thread.h"
#undef realloc

#include <poll.h>

enum { STREAMS = 24, ROUND = 400 /* events of a stream */ };

#define BYTES(text) {(const Byte *)(text), sizeof(text) - 1}
static const Template template = {
    .before = BYTES("data: {\"delta\":{\"content\":"),
    .after = BYTES("}}\n\n"),
    .numberless = BYTES(""),
    .opening = BYTES("event: e\ndata: {"),
    .closing = BYTES("}\n\n"),
    .max_event = 1 << 20,
};

typedef struct {
    int engine, up, down, client;
    /* of the engines' thread */
    int written, is_over;
    Buffer unwritten;
    size_t written_bytes;
    /* of the clients' thread */
    Buffer received;
    int is_closed;
    /* of the event loop */
    Stream *stream;  /* NULL while the event loop reads itself */
    Buffer unread;   /* by the event loop, without a whole chunk */
    Buffer unsent;   /* of the client's transport */
    size_t deltas;
    int is_done, is_broken;
} Wire;

static Wire wires[STREAMS];
static unsigned long long seed;
static const char *failure;
static size_t by_thread; /* deltas */

static void add(Buffer *buffer, const void *data, size_t size) {
    if (!buffer_add(buffer, data, size)) abort();
}

static void drop(Buffer *buffer, size_t size) {
    memmove(buffer->data, buffer->data + size, buffer->size - size);
    buffer->size -= size;
}

/* ---- the engines */

static void add_event(Wire *wire) {
    char body[512], line[32];
    int number = wire->written++;
    int spoiled = below(40) == 0; /* valid, but not as the template says */
    int padding = below(60) == 0 ? 200 : (int)below(8);
    int size = snprintf(body, sizeof body, "data: {\"delta\":{\"content\":%s\"%d %*s\"}}\n\n", spoiled ? " " : "", number,
                        padding, "");
    int head = snprintf(line, sizeof line, "%x\r\n", (unsigned)size);
    add(&wire->unwritten, line, (size_t)head);
    add(&wire->unwritten, body, (size_t)size);
    add(&wire->unwritten, "\r\n", 2);
}

static void *engines(void *argument) {
    (void)argument;
    state = seed * 2 + 1;
    is_ours = 1;
    int open = STREAMS;
    while (open != 0) {
        Wire *wire = &wires[below(STREAMS)];
        if (wire->is_over) continue;
        if (wire->written < ROUND && wire->unwritten.size < 2000) add_event(wire);
        size_t size = wire->unwritten.size;
        if (size != 0) {
            if (below(3) == 0) size = 1 + below(size);
            ssize_t sent = send(wire->engine, wire->unwritten.data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent < 0 && errno != EAGAIN) sent = (ssize_t)wire->unwritten.size, wire->written = ROUND; /* broken off */
            if (sent > 0) drop(&wire->unwritten, (size_t)sent);
        }
        if (wire->written == ROUND && wire->unwritten.size == 0) {
            shutdown(wire->engine, SHUT_WR);
            wire->is_over = 1;
            open--;
        }
        if (below(200) == 0) usleep(300);
    }
    return NULL;
}

/* ---- the clients */

static void *clients(void *argument) {
    (void)argument;
    state = seed * 2 + 2;
    is_ours = 1;
    int open = STREAMS;
    char data[4096];
    while (open != 0) {
        Wire *wire = &wires[below(STREAMS)];
        if (wire->is_closed) continue;
        ssize_t size = recv(wire->client, data, 1 + below(sizeof data), MSG_DONTWAIT);
        if (size > 0) add(&wire->received, data, (size_t)size);
        else if (size == 0 || errno != EAGAIN) {
            wire->is_closed = 1;
            open--;
        }
        if (below(300) == 0) usleep(500);
    }
    return NULL;
}

/* ---- the event loop */

static void flush(Wire *wire) {
    if (wire->unsent.size == 0) return;
    ssize_t sent = send(wire->down, wire->unsent.data, wire->unsent.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) drop(&wire->unsent, (size_t)sent);
    else if (sent < 0 && errno != EAGAIN) wire->is_broken = 1, wire->unsent.size = 0;
}

static void write_event(Wire *wire, const Byte *text, size_t size) {
    Buffer event = {NULL, 0, 0};
    add(&event, template.opening.data, template.opening.size);
    add(&event, text, size);
    add(&event, template.closing.data, template.closing.size);
    char line[32];
    int head = snprintf(line, sizeof line, "%zx\r\n", event.size);
    add(&wire->unsent, line, (size_t)head);
    add(&wire->unsent, event.data, event.size);
    add(&wire->unsent, "\r\n", 2);
    buffer_free(&event);
    wire->deltas++;
}

/* As Python: it reads also the events that the thread returns. */
static void read_chunks(Wire *wire) {
    for (;;) {
        const Byte *body;
        size_t size;
        Buffer *unread = &wire->unread;
        if (chunk_size(unread->data, unread->data + unread->size, &body, &size) != ALL) return;
        if ((size_t)(unread->data + unread->size - body) < size + 2) return;
        const Byte *text = memchr(body, '"', size);
        if (memcmp(body, template.before.data, template.before.size) != 0) failure = "not the head of an event";
        text = body + template.before.size;
        if (*text == ' ') text++;
        write_event(wire, text, size - (size_t)(text - body) - template.after.size);
        drop(unread, (size_t)(body - unread->data) + size + 2);
    }
}

static void take(Thread *thread, Wire *wire, int inside) {
    Stream *stream = wire->stream;
    if (inside) thread_lock(thread);
    if ((stream->deltas == 0) != (stream->writes == 0)) failure = "deltas without a time";
    for (size_t i = 1; i < stream->writes; i++)
        if (stream->times[i] < stream->times[i - 1]) failure = "times out of order";
    wire->deltas += stream->deltas;
    by_thread += stream->deltas;
    stream->deltas = stream->writes = 0;
    if (inside) thread_unlock(thread);
}

static void take_back(Thread *thread, Wire *wire) {
    Stream *stream = wire->stream;
    thread_remove(thread, stream);
    take(thread, wire, 0);
    add(&wire->unsent, stream->unsent.data, stream->unsent.size);
    add(&wire->unread, stream->tail.data, stream->tail.size);
    wire->stream = NULL;
    free_stream(stream);
    flush(wire);
    read_chunks(wire);
}

static void finish(Wire *wire) {
    wire->is_done = 1;
    shutdown(wire->down, SHUT_RDWR);
    close(wire->down);
    close(wire->up);
}

/* One turn of a stream that the event loop has. */
static void turn(Thread *thread, Wire *wire) {
    Byte data[8192];
    flush(wire);
    if (wire->is_broken) {
        finish(wire);
        return;
    }
    if (wire->unsent.size != 0) return;
    if (below(3) != 0 && wire->unread.size == 0) {
        Stream *stream = calloc(1, sizeof *stream);
        if (stream == NULL) abort();
        stream->template = &template;
        stream->pump = wire;
        if (!thread_add(thread, stream, wire->up, wire->down)) free_stream(stream);
        else wire->stream = stream;
        return;
    }
    ssize_t size = recv(wire->up, data, 1 + below(sizeof data), MSG_DONTWAIT);
    if (size > 0) {
        add(&wire->unread, data, (size_t)size);
        read_chunks(wire);
    } else if (size == 0 || errno != EAGAIN) {
        if (wire->unread.size != 0 && !atomic_load(&breaks)) failure = "an end within a chunk";
        finish(wire);
    }
}

static void collect(Thread *thread) {
    thread_notices(thread);
    int is_returned;
    Stream *stream;
    while ((stream = thread_notice(thread, &is_returned)) != NULL) {
        if (is_returned) take_back(thread, stream->pump);
        else take(thread, stream->pump, 1);
    }
}

/* Whether the client has the numbers from 0 on, each once. `number` receives how many. */
static int is_in_order(Wire *wire, size_t *number) {
    Byte zero = 0;
    add(&wire->received, &zero, 1);
    const char *at = (const char *)wire->received.data;
    *number = 0;
    while ((at = strstr(at, "data: {\"")) != NULL) {
        at += 8;
        if (strtoul(at, NULL, 10) != *number) return 0;
        ++*number;
    }
    return 1;
}

static void open_wire(Wire *wire) {
    memset(wire, 0, sizeof *wire);
    int pair[2], small = 4096;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) abort();
    wire->engine = pair[0];
    wire->up = pair[1];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) abort();
    wire->down = pair[0];
    wire->client = pair[1];
    setsockopt(wire->down, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
}

/* All streams from beginning to end. Returns the number of events that the thread or the loop has relayed. */
static size_t play(Thread *thread) {
    pthread_t engine, client;
    for (int i = 0; i < STREAMS; i++) open_wire(&wires[i]);
    if (pthread_create(&engine, NULL, engines, NULL) != 0 || pthread_create(&client, NULL, clients, NULL) != 0) abort();
    int left = STREAMS;
    while (left != 0 && failure == NULL) {
        struct pollfd ready = {thread->notify, POLLIN, 0};
        poll(&ready, 1, below(20) == 0 ? 1 : 0);
        if (below(3) != 0) collect(thread);
        left = 0;
        for (int i = 0; i < STREAMS; i++) {
            Wire *wire = &wires[i];
            if (wire->is_done) continue;
            left++;
            if (wire->stream == NULL) turn(thread, wire);
            else if (below(50) == 0) take_back(thread, wire);
            else if (below(8) == 0) take(thread, wire, 1); /* as before a ping */
        }
    }
    if (failure != NULL) {
        printf("FAILED: %s\n", failure);
        exit(1);
    }
    pthread_join(engine, NULL);
    pthread_join(client, NULL);
    size_t all = 0;
    for (int i = 0; i < STREAMS; i++) {
        Wire *wire = &wires[i];
        size_t number;
        int good = is_in_order(wire, &number) && number <= ROUND;
        if (!atomic_load(&breaks)) good = good && number == ROUND && wire->deltas == ROUND;
        if (!good) {
            printf("FAILED: stream %d of seed %llu: %zu events, %zu counted\n", i, seed, number, wire->deltas);
            exit(1);
        }
        all += number;
        close(wire->engine);
        close(wire->client);
        buffer_free(&wire->unwritten);
        buffer_free(&wire->received);
        buffer_free(&wire->unread);
        buffer_free(&wire->unsent);
    }
    return all;
}

int main(int arguments, char **argument) {
    double seconds = arguments > 1 ? strtod(argument[1], NULL) : 10;
    seed = arguments > 2 ? strtoull(argument[2], NULL, 10) : 1;
    double until = monotonic() + seconds;
    is_ours = 1;
    size_t events = 0, rounds = 0;
    Thread *thread = thread_start();
    if (thread == NULL) abort();
    do {
        state = ++seed * 2 + 3;
        atomic_store(&breaks, seed % 3 == 0);
        events += play(thread);
        rounds++;
        if (rounds % 4 == 0) { /* a new thread, without a stream */
            if (thread->streams != 0 || thread->first_notice != NULL || thread->first_paused != NULL) abort();
            thread_end(thread);
            thread = thread_start();
            if (thread == NULL) abort();
        }
    } while (monotonic() < until);
    thread_end(thread);
    printf("%zu events of %zu streams, %zu of them by the thread\n", events, rounds * STREAMS, by_thread);
    return by_thread == 0;
}
