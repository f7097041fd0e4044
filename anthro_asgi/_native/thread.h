/* A thread that relays streams from socket to socket. It knows no Python, so it needs no GIL. Linux only.

   An event loop gives a stream to the thread (`thread_add`). From then on the thread reads the engine's socket, converts
   what it reads (`client_chunk.h`), and writes to the client's socket:

       outside ──thread_add──► INSIDE ──(anything unexpected)──► RETURNED ──thread_remove──► outside
                                 └──────────────────────thread_remove──────────────────────────▲

   The thread returns a stream at anything that is not a whole event of its template: another event, the end, an error,
   a client whose socket is full, an incomplete chunk of more than MAX_TAIL bytes. It reads no further byte then. What it
   has read and not converted is in `tail`, what the client's socket did not take is in `unsent`. The event loop writes
   `unsent` first and reads `tail` first, so no byte is lost and each is handled once.

   What is guarded. One mutex guards the streams, the slots and the lists. The thread holds it while it handles one
   stream, and releases it between two. So after `thread_remove` the thread does not touch the stream or its sockets.
   A caller announces in `waiting` that it wants the mutex; otherwise a busy thread would take it again before the
   caller wakes up.

   Events name a slot and its generation, not a stream: one that `epoll_wait` has returned for a stream that was removed
   meanwhile is ignored.

   The sockets are duplicates, which only this file closes. So the event loop may close its own at any time, and the
   thread never reads or writes a socket that has got the same number later. While half of the descriptors that the
   process may have are in use, no stream is accepted: the others are left to new connections.

   Fast streams. A stream with more than 500 reads per second is not watched for a pause after each read, and then read
   directly: several tokens cost one read and one write. What it has written meanwhile says how long the next pause is.
   A stream with more than MANY deltas per SHORT pause is far faster than anybody reads, so its pauses are LONG, until
   one has less than MANY deltas. There is no pause while more is waiting than one read takes.

   How the event loop learns of something: the stream is appended to the list of notices, and the eventfd `notify` is
   written if the list was empty. The loop calls `thread_notice` until there is none.

   Without memory for bytes that were read, or for the rest of a write, both sockets are shut down: the client gets no
   further byte, so nothing is left out of what it has. */

#ifndef ANTHRO_ASGI_THREAD_H
#define ANTHRO_ASGI_THREAD_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client_chunk.h"

enum {
    READ_SIZE = 64 * 1024,  /* bytes */
    FIRST_ROOM = 8,         /* writes whose times a stream has memory for from the beginning */
    NOTICE_AFTER = 128,     /* writes after which the event loop is told */
    MAX_WRITES = 1024,      /* writes that the event loop has not taken; with more, it does not keep up */
    MAX_UNTAKEN = 32 * 1024, /* bytes of arguments that it has not taken; as with MAX_WRITES */
    MAX_EVENTS = 64,        /* of one `epoll_wait` */
    MANY = 16,              /* deltas; see "fast streams" */
    STOP = -1,              /* the slot of the eventfd that stops the thread */
};

/* Between the reads of a fast stream. */
typedef enum { SHORT, LONG, PAUSES, NONE = PAUSES } Pause;
static const double pause_seconds[PAUSES] = {0.001, 0.004};

typedef enum { OUTSIDE, INSIDE, RETURNED } Holder;

typedef struct Stream {
    const Template *template; /* must not change while the stream is INSIDE */
    Input *input;             /* of the caller, who leaves it to the thread; NULL for texts */
    void *pump;               /* of the caller, who finds it in a notice */
    int upstream, client;     /* duplicates of the sockets; -1 outside */
    Holder holder;
    int slot;
    Buffer tail;     /* read, not converted; see above */
    Buffer unsent;   /* the rest of the last write */
    Buffer counts;   /* of the latest event */
    size_t deltas;   /* since they were last taken, as the next three */
    size_t silent;   /* deltas that the client gets nothing of */
    double *times;   /* of the writes, on CLOCK_MONOTONIC */
    size_t writes, room;
    double last_read;
    double measured; /* when the speed was last measured */
    int reads_left;  /* until it is measured again */
    int is_fast;
    int is_watched;  /* whether the epoll reports its bytes; it always reports an error */
    Pause last;      /* pause before the latest read */
    Pause pause;     /* it is in this list of paused streams, until `due` */
    double due;
    struct Stream *previous_paused, *next_paused;
    int is_noticed;  /* in the list of notices */
    struct Stream *previous_notice, *next_notice;
} Stream;

typedef struct {
    Stream *stream;      /* NULL if the slot is free */
    uint32_t generation; /* counts its streams */
    int next_free;
} Slot;

typedef struct {
    Stream *first, *last; /* in the order of `due`: all wait equally long */
} Paused;

typedef struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    atomic_int waiting; /* callers of `thread_lock` */
    pid_t process;      /* a fork has a copy of this structure but not the thread */
    int epoll, notify, stop;
    int most_descriptors; /* a duplicate with this number or a higher one is refused */
    Slot *slots;
    int slot_room, first_free, streams;
    Paused paused[PAUSES];
    Stream *first_notice, *last_notice;
    Byte *input;   /* of the thread alone, as `events` */
    Buffer events;
} Thread;

/* ---- small things */

static inline double monotonic(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* For callers of other threads. */
static inline void thread_lock(Thread *thread) {
    atomic_fetch_add(&thread->waiting, 1);
    pthread_mutex_lock(&thread->mutex);
    atomic_fetch_sub(&thread->waiting, 1);
}

static inline void thread_unlock(Thread *thread) { pthread_mutex_unlock(&thread->mutex); }

/* For the thread itself: lets those go first who wait. */
static inline void lock_after_others(Thread *thread) {
    while (atomic_load(&thread->waiting) != 0) sched_yield();
    pthread_mutex_lock(&thread->mutex);
}

static inline void ring(int eventfd) {
    uint64_t one = 1;
    ssize_t written = write(eventfd, &one, sizeof one);
    (void)written; /* it fails only if the counter is full: then it is readable anyway */
}

/* ---- the lists; all of them with the mutex held */

static inline void notice(Thread *thread, Stream *stream) {
    if (stream->is_noticed) return;
    stream->is_noticed = 1;
    stream->previous_notice = thread->last_notice;
    stream->next_notice = NULL;
    if (thread->last_notice != NULL) thread->last_notice->next_notice = stream;
    else thread->first_notice = stream;
    if (thread->last_notice == NULL) ring(thread->notify);
    thread->last_notice = stream;
}

static inline void drop_notice(Thread *thread, Stream *stream) {
    if (!stream->is_noticed) return;
    stream->is_noticed = 0;
    if (stream->previous_notice != NULL) stream->previous_notice->next_notice = stream->next_notice;
    else thread->first_notice = stream->next_notice;
    if (stream->next_notice != NULL) stream->next_notice->previous_notice = stream->previous_notice;
    else thread->last_notice = stream->previous_notice;
}

static inline int listen_to(Thread *thread, Stream *stream, int operation, uint32_t events) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u64 = (uint64_t)(uint32_t)stream->slot | (uint64_t)thread->slots[stream->slot].generation << 32;
    if (epoll_ctl(thread->epoll, operation, stream->upstream, &event) < 0) return 0;
    stream->is_watched = events != 0;
    return 1;
}

/* Read nothing of this stream for the time of `pause`. Returns 0 if the system cannot. */
static inline int pause_stream(Thread *thread, Stream *stream, Pause pause, double now) {
    if (stream->is_watched && !listen_to(thread, stream, EPOLL_CTL_MOD, 0)) return 0;
    Paused *list = &thread->paused[pause];
    stream->pause = pause;
    stream->due = now + pause_seconds[pause];
    stream->previous_paused = list->last;
    stream->next_paused = NULL;
    if (list->last != NULL) list->last->next_paused = stream;
    else list->first = stream;
    list->last = stream;
    return 1;
}

static inline void unlist_paused(Thread *thread, Stream *stream) {
    if (stream->pause == NONE) return;
    Paused *list = &thread->paused[stream->pause];
    stream->pause = NONE;
    if (stream->previous_paused != NULL) stream->previous_paused->next_paused = stream->next_paused;
    else list->first = stream->next_paused;
    if (stream->next_paused != NULL) stream->next_paused->previous_paused = stream->previous_paused;
    else list->last = stream->previous_paused;
}

/* The slot becomes free, and events for the stream have no effect from now on. */
static inline void leave_slot(Thread *thread, Stream *stream) {
    Slot *slot = &thread->slots[stream->slot];
    epoll_ctl(thread->epoll, EPOLL_CTL_DEL, stream->upstream, NULL);
    unlist_paused(thread, stream);
    slot->stream = NULL;
    slot->generation++;
    slot->next_free = thread->first_free;
    thread->first_free = stream->slot;
    thread->streams--;
}

static inline int take_slot(Thread *thread, Stream *stream) {
    if (thread->first_free < 0) {
        int room = thread->slot_room * 2 + 16;
        Slot *slots = realloc(thread->slots, (size_t)room * sizeof *slots);
        if (slots == NULL) return 0;
        for (int i = room - 1; i >= thread->slot_room; i--) {
            slots[i] = (Slot){NULL, 0, thread->first_free};
            thread->first_free = i;
        }
        thread->slots = slots;
        thread->slot_room = room;
    }
    stream->slot = thread->first_free;
    thread->first_free = thread->slots[stream->slot].next_free;
    thread->slots[stream->slot].stream = stream;
    thread->streams++;
    return 1;
}

static inline void give_back(Thread *thread, Stream *stream) {
    leave_slot(thread, stream);
    stream->holder = RETURNED;
    notice(thread, stream);
}

/* ---- one read, in the thread, with the mutex held */

/* Note a write. Returns 0 if the event loop does not keep up, or without memory. */
static inline int note_stream_write(Thread *thread, Stream *stream, double now) {
    if (stream->writes == stream->room) {
        size_t room = stream->room * 2;
        double *times = room > MAX_WRITES ? NULL : realloc(stream->times, room * sizeof *times);
        if (times == NULL) return 0; /* it is made; only its time is not noted */
        stream->times = times;
        stream->room = room;
    }
    stream->times[stream->writes++] = now;
    if (stream->writes >= NOTICE_AFTER) notice(thread, stream);
    return 1;
}

/* How long to pause after a read of `deltas` deltas, which was `full` if it took all that one read can take. */
static inline Pause next_pause(Stream *stream, size_t deltas, int full, double now) {
    if (stream->last == LONG && deltas >= MANY) return full ? NONE : LONG;
    if (stream->last == LONG || --stream->reads_left == 0) {
        stream->is_fast = stream->last == LONG || now - stream->measured < FAST;
        stream->reads_left = FAST_READS;
        stream->measured = now;
    }
    if (!stream->is_fast || full) return NONE;
    return stream->last == SHORT && deltas >= MANY ? LONG : SHORT;
}

/* There is no memory: end the stream on both sides. */
static inline void break_off(Thread *thread, Stream *stream) {
    shutdown(stream->upstream, SHUT_RDWR);
    shutdown(stream->client, SHUT_RDWR);
    give_back(thread, stream);
}

/* Read the stream again after `pause`, or as soon as it has bytes. */
static inline void await_more(Thread *thread, Stream *stream, Pause pause, double now) {
    stream->last = pause;
    int done = pause != NONE      ? pause_stream(thread, stream, pause, now)
               : stream->is_watched || listen_to(thread, stream, EPOLL_CTL_MOD, EPOLLIN);
    if (!done) give_back(thread, stream);
}

static inline void relay(Thread *thread, Stream *stream, uint32_t events) {
    /* The event loop reads what arrived before an error, and then the error, which the kernel reports once. */
    if (events & (EPOLLERR | EPOLLHUP)) {
        give_back(thread, stream);
        return;
    }
    Byte *data = thread->input;
    size_t size = stream->tail.size;
    if (size != 0) memcpy(data, stream->tail.data, size);
    ssize_t read = recv(stream->upstream, data + size, READ_SIZE, MSG_DONTWAIT);
    if (read <= 0) {
        if (read == 0 || (errno != EAGAIN && errno != EINTR)) give_back(thread, stream);
        else if (!stream->is_watched) await_more(thread, stream, NONE, 0);
        return;
    }
    size += (size_t)read;
    stream->tail.size = 0;
    double now = stream->last_read = monotonic();
    Outcome outcome;
    Result result;
    Bytes chunk;
    if (!convert_read(stream->template, stream->input, data, size, &outcome, &result, &thread->events, &chunk,
                      &stream->counts)) {
        break_off(thread, stream);
        return;
    }
    int stays = outcome != OTHER;
    stream->deltas += result.deltas;
    stream->silent += result.silent;
    if (stream->input != NULL && stream->input->text.size >= SYNC_INPUT) {
        notice(thread, stream);
        if (stream->input->text.size >= MAX_UNTAKEN) stays = 0;
    }
    if (chunk.size != 0) {
        ssize_t sent = send(stream->client, chunk.data, chunk.size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) sent = 0;
        size_t left = chunk.size - (size_t)sent;
        if (!note_stream_write(thread, stream, now)) stays = 0;
        if (left != 0) {
            if (!buffer_add(&stream->unsent, chunk.data + sent, left)) {
                break_off(thread, stream);
                return;
            }
            stays = 0;
        }
    }
    size -= result.consumed;
    if (!buffer_add(&stream->tail, data + result.consumed, size)) {
        break_off(thread, stream);
        return;
    }
    if (!stays || size > MAX_TAIL) give_back(thread, stream);
    else await_more(thread, stream, next_pause(stream, result.deltas, read == READ_SIZE, now), now);
}

/* ---- the thread */

/* Read the paused streams that are due. Returns the milliseconds until the next one is; -1 without any. */
static inline int read_due(Thread *thread) {
    double now = monotonic(); /* a stream that is paused again here is due later */
    for (Pause pause = SHORT; pause < PAUSES; pause++) {
        int found;
        do {
            lock_after_others(thread);
            Stream *stream = thread->paused[pause].first;
            found = stream != NULL && stream->due <= now;
            if (found) {
                unlist_paused(thread, stream);
                relay(thread, stream, 0);
            }
            thread_unlock(thread);
        } while (found);
    }
    lock_after_others(thread);
    double due = HUGE_VAL;
    for (Pause pause = SHORT; pause < PAUSES; pause++)
        if (thread->paused[pause].first != NULL && thread->paused[pause].first->due < due)
            due = thread->paused[pause].first->due;
    thread_unlock(thread);
    if (due == HUGE_VAL) return -1;
    double left = due - monotonic();
    return left <= 0 ? 0 : 1 + (int)(left * 1000);
}

static inline void *run_thread(void *argument) {
    Thread *thread = argument;
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int number = epoll_wait(thread->epoll, events, MAX_EVENTS, read_due(thread));
        for (int i = 0; i < number; i++) {
            int slot = (int)(uint32_t)events[i].data.u64;
            uint32_t generation = (uint32_t)(events[i].data.u64 >> 32);
            if (slot == STOP) return NULL;
            lock_after_others(thread);
            Slot *found = &thread->slots[slot];
            if (found->stream != NULL && found->generation == generation)
                relay(thread, found->stream, events[i].events);
            thread_unlock(thread);
        }
    }
}

/* ---- for the event loop */

/* Whether the calling process has this thread; a process that was forked from it does not. */
static inline int thread_runs(const Thread *thread) { return thread->process == getpid(); }

static inline void free_thread(Thread *thread) {
    if (thread->epoll >= 0) close(thread->epoll);
    if (thread->notify >= 0) close(thread->notify);
    if (thread->stop >= 0) close(thread->stop);
    pthread_mutex_destroy(&thread->mutex);
    buffer_free(&thread->events);
    free(thread->slots);
    free(thread->input);
    free(thread);
}

/* Start a thread; NULL with `errno`. It handles no signals. */
static inline Thread *thread_start(void) {
    Thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL) return NULL;
    pthread_mutex_init(&thread->mutex, NULL);
    atomic_init(&thread->waiting, 0);
    thread->first_free = -1;
    thread->process = getpid();
    struct rlimit limit;
    thread->most_descriptors = INT_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 < INT_MAX)
        thread->most_descriptors = (int)(limit.rlim_cur / 2);
    thread->epoll = epoll_create1(EPOLL_CLOEXEC);
    thread->notify = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    thread->stop = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    thread->input = malloc(MAX_TAIL + READ_SIZE);
    int error = thread->input == NULL ? ENOMEM : 0;
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.u64 = (uint32_t)STOP;
    if (error == 0 && (thread->epoll < 0 || thread->notify < 0 || thread->stop < 0 ||
                       epoll_ctl(thread->epoll, EPOLL_CTL_ADD, thread->stop, &event) < 0))
        error = errno;
    if (error == 0) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&thread->thread, NULL, run_thread, thread);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (error != 0) {
        free_thread(thread);
        errno = error;
        return NULL;
    }
    return thread;
}

/* End the thread, which has no stream. In a forked process it only frees the memory. */
static inline void thread_end(Thread *thread) {
    if (thread_runs(thread)) {
        ring(thread->stop);
        pthread_join(thread->thread, NULL);
    }
    free_thread(thread);
}

static inline void close_sockets(Stream *stream) {
    if (stream->upstream >= 0) close(stream->upstream);
    if (stream->client >= 0) close(stream->client);
    stream->upstream = stream->client = -1;
}

/* Let the thread relay `stream`, whose template is set: from the socket `upstream` to the socket `client`. The caller
   reads and writes neither of them until `thread_remove`. Returns 0 if it cannot, with `errno`. */
static inline int thread_add(Thread *thread, Stream *stream, int upstream, int client) {
    if (!thread_runs(thread)) {
        errno = ESRCH;
        return 0;
    }
    stream->upstream = fcntl(upstream, F_DUPFD_CLOEXEC, 0);
    stream->client = stream->upstream < 0 ? -1 : fcntl(client, F_DUPFD_CLOEXEC, 0);
    if (stream->client < 0 || stream->client >= thread->most_descriptors) {
        int error = stream->client < 0 ? errno : EMFILE;
        close_sockets(stream);
        errno = error;
        return 0;
    }
    stream->reads_left = FAST_READS;
    stream->is_fast = 0;
    stream->pause = stream->last = NONE;
    stream->measured = stream->last_read = monotonic();
    stream->times = malloc(FIRST_ROOM * sizeof *stream->times); /* so that a noted delta always has a time */
    stream->room = FIRST_ROOM;
    thread_lock(thread);
    int error = stream->times != NULL && take_slot(thread, stream) ? 0 : ENOMEM;
    if (error == 0) {
        stream->holder = INSIDE;
        if (!listen_to(thread, stream, EPOLL_CTL_ADD, EPOLLIN)) {
            error = errno;
            leave_slot(thread, stream);
            stream->holder = OUTSIDE;
        }
    }
    thread_unlock(thread);
    if (error == 0) return 1;
    close_sockets(stream);
    errno = error;
    return 0;
}

/* Take the stream back, whether it is inside or returned. Afterwards the thread touches neither it nor its sockets. */
static inline void thread_remove(Thread *thread, Stream *stream) {
    if (thread_runs(thread)) { /* else the epoll belongs to the parent process, and the mutex may be held for ever */
        thread_lock(thread);
        if (stream->holder == INSIDE) leave_slot(thread, stream);
        drop_notice(thread, stream);
        thread_unlock(thread);
    }
    stream->holder = OUTSIDE;
    close_sockets(stream);
}

/* Begin to read the notices: those that are added from now on ring again. */
static inline void thread_notices(Thread *thread) {
    uint64_t count;
    ssize_t got = read(thread->notify, &count, sizeof count);
    (void)got; /* it fails if nothing has rung */
}

/* The next stream that was returned, or has something to take; NULL if there is none. `is_returned` says which. */
static inline Stream *thread_notice(Thread *thread, int *is_returned) {
    thread_lock(thread);
    Stream *stream = thread->first_notice;
    if (stream != NULL) {
        drop_notice(thread, stream);
        *is_returned = stream->holder == RETURNED;
    }
    thread_unlock(thread);
    return stream;
}

static inline void free_stream(Stream *stream) {
    buffer_free(&stream->tail);
    buffer_free(&stream->unsent);
    buffer_free(&stream->counts);
    free(stream->times);
    free(stream);
}

#endif
