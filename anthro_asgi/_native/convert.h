/* Converts HTTP chunks with chat-completions events into one HTTP chunk with Messages events. Pure: no Python, no I/O.

   `convert` reads HTTP chunks from the beginning of `data`. It stops before the first one that is incomplete, or that
   holds anything but whole events which match the stream's template. Each event that it has read becomes one event of the
   Messages API with the same text:

       5f\r\n  data: {…,"delta":{"content":  " the"  },"finish_reason":null}],"usage":  {"prompt_tokens":9}}\n\n  \r\n
       size    └────────── before ──────────┘└text─┘└──────────── after ─────────────┘└────── counts ──────┘

   `before`, `after` and the counts are those of the Python class ChunkTemplate. Counts match if they equal `numberless`
   once every number in them is replaced by 0. The text is a JSON string. It is validated, and written as orjson writes
   it. Python code reads the chunk at which `convert` stops, and all that follow it.

   `convert_input` does the same for the arguments of a tool call. Of these the client gets what can be released (see
   `tool_json.h`), and no event for an event of which nothing can be released.

   Nothing here allocates except `Buffer`, and nothing keeps a pointer into `data`. Every read is bounded by `end`. */

#ifndef ANTHRO_ASGI_CONVERT_H
#define ANTHRO_ASGI_CONVERT_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tool_json.h"

enum {
    MAX_CHUNK = 64 * 1024,  /* bytes; a larger chunk is left to Python */
    MAX_DIGITS = 15,        /* of a count: a larger number may be beyond 64 bits */
    SIZE_DIGITS = 8,        /* of a chunk's size, with leading zeros */
    MAX_UNREAD = 4096,      /* bytes of arguments that Python has not read; PIECE in engines/shared/event_pieces.py */
};

/* ---- bytes that grow */

typedef struct {
    Byte *data;
    size_t size, room;
} Buffer;

/* Make room for `more` bytes. Returns 0 if there is no memory; the buffer is unchanged then. */
static inline int buffer_reserve(Buffer *buffer, size_t more) {
    if (buffer->room - buffer->size >= more) return 1;
    if (more > (size_t)-1 / 4 || buffer->size > (size_t)-1 / 4) return 0;
    size_t room = (buffer->size + more) * 2;
    Byte *data = realloc(buffer->data, room);
    if (data == NULL) return 0;
    buffer->data = data;
    buffer->room = room;
    return 1;
}

static inline int buffer_add(Buffer *buffer, const void *data, size_t size) {
    if (size == 0) return 1;
    if (!buffer_reserve(buffer, size)) return 0;
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return 1;
}

static inline void buffer_free(Buffer *buffer) {
    free(buffer->data);
    buffer->data = NULL;
    buffer->size = buffer->room = 0;
}

/* ---- the template, and what is found */

typedef struct {
    const Byte *data;
    size_t size;
} Bytes;

typedef struct {
    Bytes before, after, numberless; /* `numberless` is empty for a stream without counts */
    Bytes opening, closing;          /* of the client's event: the bytes before and after the JSON string */
    size_t max_event;                /* bytes */
} Template;

typedef enum {
    ALL,        /* all of `data` is converted */
    INCOMPLETE, /* the rest is the beginning of a chunk, without a whole event in it */
    OTHER,      /* the rest is something else */
    NO_MEMORY,
} Outcome;

typedef struct {
    size_t consumed; /* bytes of `data` */
    size_t deltas;   /* events */
    size_t silent;   /* those among them of which nothing can be released */
    Bytes counts;    /* of the last event; points into `data` */
} Result;

static inline int starts_with(const Byte *at, const Byte *end, Bytes prefix) {
    return (size_t)(end - at) >= prefix.size && (prefix.size == 0 || memcmp(at, prefix.data, prefix.size) == 0);
}

/* ---- a JSON string */

static inline int hex_value(Byte c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The value of four hexadecimal digits at `at`; -1 if they are not there. */
static inline long hex4(const Byte *at, const Byte *end) {
    if (end - at < 4) return -1;
    long value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The length of the UTF-8 sequence at `at` that begins with a byte over 0x7f (RFC 3629); 0 if it is not valid. */
static inline size_t utf8_length(const Byte *at, const Byte *end) {
    Byte first = at[0];
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || (size_t)(end - at) < length) return 0;
    Byte second = at[1];
    if (first == 0xe0 && second < 0xa0) return 0; /* overlong */
    if (first == 0xed && second > 0x9f) return 0; /* a surrogate */
    if (first == 0xf0 && second < 0x90) return 0; /* overlong */
    if (first == 0xf4 && second > 0x8f) return 0; /* beyond U+10FFFF */
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    return length;
}

/* Write one character in UTF-8. Returns the number of bytes. */
static inline size_t write_utf8(unsigned long code, Byte *out) {
    if (code < 0x80) {
        out[0] = (Byte)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (Byte)(0xc0 | code >> 6);
        out[1] = (Byte)(0x80 | (code & 63));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (Byte)(0xe0 | code >> 12);
        out[1] = (Byte)(0x80 | (code >> 6 & 63));
        out[2] = (Byte)(0x80 | (code & 63));
        return 3;
    }
    out[0] = (Byte)(0xf0 | code >> 18);
    out[1] = (Byte)(0x80 | (code >> 12 & 63));
    out[2] = (Byte)(0x80 | (code >> 6 & 63));
    out[3] = (Byte)(0x80 | (code & 63));
    return 4;
}

/* Write one character as orjson writes it in a JSON string: at most 6 bytes. Returns their number. */
static inline size_t write_character(unsigned long code, Byte *out) {
    static const char digits[] = "0123456789abcdef";
    char escape = 0;
    switch (code) {
    case '"': escape = '"'; break;
    case '\\': escape = '\\'; break;
    case '\b': escape = 'b'; break;
    case '\f': escape = 'f'; break;
    case '\n': escape = 'n'; break;
    case '\r': escape = 'r'; break;
    case '\t': escape = 't'; break;
    default: break;
    }
    if (escape != 0) {
        out[0] = '\\';
        out[1] = (Byte)escape;
        return 2;
    }
    if (code < 0x20) {
        memcpy(out, "\\u00", 4);
        out[4] = (Byte)digits[code >> 4];
        out[5] = (Byte)digits[code & 15];
        return 6;
    }
    return write_utf8(code, out);
}

/* Read the character of the escape at `at` (after the backslash) into `found`.

   Returns the number of bytes read; 0 for an invalid escape and for half a surrogate pair, which Python decides about. */
static inline size_t read_escape(const Byte *at, const Byte *end, unsigned long *found) {
    if (at >= end) return 0;
    unsigned long code;
    size_t length = 1;
    switch (*at) {
    case '"': case '\\': case '/': code = *at; break;
    case 'b': code = '\b'; break;
    case 'f': code = '\f'; break;
    case 'n': code = '\n'; break;
    case 'r': code = '\r'; break;
    case 't': code = '\t'; break;
    case 'u': {
        long unit = hex4(at + 1, end);
        if (unit < 0) return 0;
        length = 5;
        code = (unsigned long)unit;
        if (code >= 0xd800 && code < 0xe000) {
            if (code >= 0xdc00 || end - at < 11 || at[5] != '\\' || at[6] != 'u') return 0;
            long low = hex4(at + 7, end);
            if (low < 0xdc00 || low > 0xdfff) return 0;
            code = 0x10000 + ((code - 0xd800) << 10) + (unsigned long)(low - 0xdc00);
            length = 11;
        }
        break;
    }
    default: return 0;
    }
    *found = code;
    return length;
}

/* Read the JSON string at `at`, and write its characters to `out` as `write` does: write_character or write_utf8. `out`
   must have room for `end - at` bytes: no character becomes longer. Returns the first byte after the string; NULL if it is
   empty, invalid or not complete before `end`. */
static inline const Byte *read_string(const Byte *at, const Byte *end, Byte **out,
                                      size_t (*write)(unsigned long code, Byte *out)) {
    if (end - at < 3 || *at != '"' || at[1] == '"') return NULL;
    Byte *to = *out;
    at++;
    for (;;) {
        const Byte *run = at;
        while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') at++;
        memcpy(to, run, (size_t)(at - run));
        to += at - run;
        if (at >= end || *at < 0x20) return NULL;
        if (*at == '"') {
            *out = to;
            return at + 1;
        }
        if (*at == '\\') {
            unsigned long code = 0;
            size_t length = read_escape(at + 1, end, &code);
            if (length == 0) return NULL;
            at += 1 + length;
            to += write(code, to);
        } else {
            size_t length = utf8_length(at, end);
            if (length == 0) return NULL;
            memcpy(to, at, length);
            at += length;
            to += length;
        }
    }
}

/* Copy the JSON string at `at` to `out`, which must have room for `end - at` bytes and 8 more. Returns as `read_string`. */
static inline const Byte *copy_string(const Byte *at, const Byte *end, Byte **out) {
    Byte *to = *out;
    *to++ = '"';
    at = read_string(at, end, &to, write_character);
    if (at == NULL) return NULL;
    *to++ = '"';
    *out = to;
    return at;
}

/* Append the text of the JSON string at `at` to `text`, which has room for `end - at` bytes. Returns as `read_string`. */
static inline const Byte *decode_string(const Byte *at, const Byte *end, Buffer *text) {
    Byte *to = text->data + text->size;
    at = read_string(at, end, &to, write_utf8);
    if (at != NULL) text->size = (size_t)(to - text->data);
    return at;
}

/* ---- one event */

/* The arguments of a call: where they are, and the text of all pieces that were read, for Python to read as well. */
typedef struct {
    Json json;
    Buffer text;
} Input;

/* Read the piece of arguments in the JSON string at `at`, and write what can be released as a JSON string to `out`, which
   must have room as for `copy_string`, and for HELD_ROOM bytes more. Returns as `copy_string`, and NULL for more text than
   Python may read at once: it divides a large read, and reads a large event in a thread. */
static inline const Byte *copy_input(Input *input, const Byte *at, const Byte *end, Byte **out) {
    size_t begin = input->text.size;
    at = decode_string(at, end, &input->text);
    if (at == NULL || input->text.size > MAX_UNREAD) return NULL;
    *(*out)++ = '"';
    if (!json_read(&input->json, input->text.data + begin, input->text.data + input->text.size, out)) return NULL;
    *(*out)++ = '"';
    return at;
}

/* The end of the counts at `at`, which may differ from `numberless` in their numbers only; NULL if they do not match.

   A number is 0, or up to MAX_DIGITS digits that do not begin with 0. So two counts that match are both valid JSON, or
   neither is. */
static inline const Byte *match_counts(const Byte *at, const Byte *end, Bytes numberless) {
    const Byte *pattern = numberless.data, *stop = numberless.data + numberless.size;
    for (; pattern < stop; pattern++) {
        if (*pattern != '0') {
            if (at >= end || *at != *pattern) return NULL;
            at++;
            continue;
        }
        const Byte *number = at;
        while (at < end && *at >= '0' && *at <= '9') at++;
        if (at == number || at - number > MAX_DIGITS || (*number == '0' && at - number > 1)) return NULL;
    }
    return at;
}

/* Convert the event at `at`: append the client's event, if there is one, to `out`, which has room for it. `input` is NULL
   for texts. Returns the first byte after the event; NULL for any other event. */
static inline const Byte *convert_event(const Template *template, Input *input, const Byte *at, const Byte *end,
                                        Byte **out, Result *found) {
    const Byte *begin = at;
    if (!starts_with(at, end, template->before)) return NULL;
    at += template->before.size;
    Byte *to = *out;
    memcpy(to, template->opening.data, template->opening.size);
    to += template->opening.size;
    const Byte *string = to;
    at = input == NULL ? copy_string(at, end, &to) : copy_input(input, at, end, &to);
    if (at == NULL || !starts_with(at, end, template->after)) return NULL;
    at += template->after.size;
    if (template->numberless.size != 0) {
        found->counts.data = at;
        at = match_counts(at, end, template->numberless);
        if (at == NULL) return NULL;
        found->counts.size = (size_t)(at - found->counts.data);
    }
    if ((size_t)(at - begin) > template->max_event) return NULL;
    found->deltas++;
    if (to - string == 2) { /* an empty string: nothing can be released */
        found->silent++;
        return at;
    }
    memcpy(to, template->closing.data, template->closing.size);
    *out = to + template->closing.size;
    return at;
}

/* ---- chunks */

/* Whether there may be a whole event in these bytes: then they must not wait for the rest of their chunk. */
static inline int has_event(const Byte *at, const Byte *end) {
    for (; end - at >= 2; at++)
        if (at[0] == '\n' && (at[1] == '\n' || at[1] == '\r')) return 1;
    return 0;
}

/* Read the line with a chunk's size at `at`. Chunk extensions are left to Python, and so is the last chunk. */
static inline Outcome chunk_size(const Byte *at, const Byte *end, const Byte **body, size_t *size) {
    size_t value = 0;
    int digits = 0;
    while (at < end && hex_value(*at) >= 0) {
        if (++digits > SIZE_DIGITS) return OTHER;
        value = value * 16 + (size_t)hex_value(*at++);
    }
    if (value > MAX_CHUNK) return OTHER;
    if (at == end) return INCOMPLETE;
    if (digits == 0 || value == 0 || *at != '\r') return OTHER;
    if (++at == end) return INCOMPLETE;
    if (*at != '\n') return OTHER;
    *body = at + 1;
    *size = value;
    return ALL;
}

/* Convert chunks from the head of `data`, and append their events to `out`. See the beginning of this file.

   `input` is NULL for texts. Otherwise it has the state after the bytes that were converted. */
static inline Outcome convert_input(const Template *template, Input *input, const Byte *data, size_t length, Buffer *out,
                                    Result *result) {
    const Byte *at = data, *end = data + length;
    *result = (Result){0, 0, 0, {NULL, 0}};
    size_t frame = template->opening.size + template->closing.size + (input == NULL ? 0 : HELD_ROOM);
    size_t least = template->before.size + template->after.size + 3; /* bytes of an event */
    while (at < end) {
        const Byte *body;
        size_t size;
        Outcome outcome = chunk_size(at, end, &body, &size);
        if (outcome != ALL) return outcome;
        if ((size_t)(end - body) < size + 2) return has_event(body, end) ? OTHER : INCOMPLETE;
        const Byte *stop = body + size;
        if (stop[0] != '\r' || stop[1] != '\n') return OTHER;
        if (!buffer_reserve(out, size + (size / least + 1) * frame + 8)) return NO_MEMORY;
        Json json; /* the state before this chunk, which is taken back unless Python need not read the chunk */
        size_t text = 0;
        if (input != NULL) {
            if (!buffer_reserve(&input->text, size + 8)) return NO_MEMORY;
            json = input->json;
            text = input->text.size;
        }
        Byte *to = out->data + out->size;
        Result found = *result;
        while (body < stop) {
            body = convert_event(template, input, body, stop, &to, &found);
            if (body != NULL) continue;
            if (input != NULL) {
                input->json = json;
                input->text.size = text;
            }
            return OTHER;
        }
        out->size = (size_t)(to - out->data);
        *result = found;
        at = stop + 2;
        result->consumed = (size_t)(at - data);
    }
    return ALL;
}

static inline Outcome convert(const Template *template, const Byte *data, size_t length, Buffer *out, Result *result) {
    return convert_input(template, NULL, data, length, out, result);
}

#endif
