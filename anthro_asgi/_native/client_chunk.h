/* Converts what was read from an engine into one HTTP chunk for the client. Pure: no Python, no I/O. See `convert.h`. */

#ifndef ANTHRO_ASGI_CLIENT_CHUNK_H
#define ANTHRO_ASGI_CLIENT_CHUNK_H

#include "convert.h"

enum {
    MAX_TAIL = 4096, /* bytes of an incomplete chunk that wait for the rest */
    HEAD_ROOM = 16,  /* bytes before the events for the line with the chunk's size */
    SYNC_INPUT = 2048, /* bytes of arguments after which Python is told */
    FAST_READS = 16, /* reads within FAST seconds, after which reads are made less frequent */
};
static const double FAST = 0.032; /* seconds; as in engines/openai/read_coalescer.py */

/* `events` as one HTTP chunk. They begin after HEAD_ROOM bytes, and are followed by room for two. */
static inline Bytes framed(Buffer *events) {
    static const char digits[] = "0123456789abcdef";
    Byte *at = events->data + HEAD_ROOM;
    size_t size = events->size - HEAD_ROOM;
    *--at = '\n';
    *--at = '\r';
    do {
        *--at = (Byte)digits[size & 15];
        size >>= 4;
    } while (size != 0 && at > events->data);
    memcpy(events->data + events->size, "\r\n", 2);
    return (Bytes){at, (size_t)(events->data + events->size + 2 - at)};
}

/* Convert the head of `data` to the client's next HTTP chunk. `input` is NULL for texts. `chunk` points into `events`,
   which the caller frees, and is empty if there is none. `counts` receives a copy of the latest counts. Returns 0 if
   there is no memory; `input` is of no use then. */
static inline int convert_read(const Template *template, Input *input, const Byte *data, size_t size, Outcome *outcome,
                               Result *result, Buffer *events, Bytes *chunk, Buffer *counts) {
    *chunk = (Bytes){NULL, 0};
    if (!buffer_reserve(events, HEAD_ROOM + size + 256)) return 0; /* enough for most reads */
    memset(events->data, 0, HEAD_ROOM);
    events->size = HEAD_ROOM;
    *outcome = convert_input(template, input, data, size, events, result);
    if (*outcome == NO_MEMORY) return 0;
    if (result->deltas == 0) return 1;
    counts->size = 0;
    if (!buffer_add(counts, result->counts.data, result->counts.size) || !buffer_reserve(events, 2)) return 0;
    if (result->deltas != result->silent) *chunk = framed(events);
    return 1;
}

#endif
