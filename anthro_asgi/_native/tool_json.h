/* The arguments of a tool call, piece by piece: what the Python class JsonObject releases of them. Pure: no allocation.

   The joined pieces are the text of one JSON object. Python releases a piece as soon as its meaning is certain, and holds
   back the rest: a comma until a value follows it, a constant and the end of a number until they are complete, and an
   escape in a string until it is complete.

       pieces      {"a   ":   1   ,   "b":  tr   ue}
       released    {"a   ":   1       ,"b":      true}

   `json_read` does the same for valid JSON. It refuses everything that Python would repair or leave out. Then Python must
   read the piece, and the state that `json_read` leaves behind is of no use: callers keep a copy. */

#ifndef ANTHRO_ASGI_TOOL_JSON_H
#define ANTHRO_ASGI_TOOL_JSON_H

#include <stddef.h>
#include <string.h>

typedef unsigned char Byte;

enum {
    MAX_NESTING = 100, /* brackets; MAX_DEPTH in wire/defaults.py */
    MAX_COMMA = 64,    /* bytes of a comma with white space; longer ones are left to Python */
    MAX_WORD = 64,     /* bytes of a number or constant */
    ESCAPE_SIZE = 6,   /* of a whole escape with four digits */
};

/* What the next byte may be. The values are the letters that JsonObject.place uses. */
typedef enum {
    KEY = 'k',
    KEY_STRING = 'K', /* inside a key */
    COLON = ':',
    VALUE = 'v',
    STRING = '"', /* inside a string that is a value */
    COMMA = ',',
} Place;

typedef struct {
    Byte stack[MAX_NESTING]; /* open brackets */
    size_t depth;            /* 0: the object is complete */
    Place place;
    Byte comma[MAX_COMMA]; /* held back, with the white space after it */
    size_t comma_size;
    Byte word[MAX_WORD]; /* a number or constant that is not complete */
    size_t word_size, copied;
    Byte escape[ESCAPE_SIZE]; /* held back */
    size_t escape_size;
} Json;

enum {
    /* The most bytes that `json_read` writes beyond those of its piece: what was held back. A line feed takes two. */
    HELD_ROOM = 2 * MAX_COMMA + MAX_WORD + ESCAPE_SIZE + 8,
};

/* Set the state from the brackets that are open and a letter for the place; nothing is held back. 0 if it is no state. */
static inline int json_begin(Json *json, const Byte *place, size_t size) {
    if (size < 2 || size - 1 > MAX_NESTING) return 0;
    for (size_t i = 0; i < size - 1; i++)
        if (place[i] != '{' && place[i] != '[') return 0;
    memset(json, 0, sizeof *json);
    memcpy(json->stack, place, size - 1);
    json->depth = size - 1;
    int in_object = place[size - 2] == '{';
    switch (place[size - 1]) {
    case KEY: case KEY_STRING: case COLON:
        if (!in_object) return 0;
        break;
    case VALUE: case STRING: case COMMA: break;
    default: return 0;
    }
    json->place = (Place)place[size - 1];
    return 1;
}

/* ---- output: the inside of a JSON string */

static inline void put(Byte **out, Byte byte) {
    char escape = byte == '"' || byte == '\\' ? (char)byte : byte == '\n' ? 'n' : byte == '\r' ? 'r' : byte == '\t' ? 't' : 0;
    if (escape != 0) {
        *(*out)++ = '\\';
        byte = (Byte)escape;
    }
    *(*out)++ = byte;
}

static inline void put_all(Byte **out, const Byte *data, size_t size) {
    for (size_t i = 0; i < size; i++) put(out, data[i]);
}

/* The comma that was held back, before what follows it. */
static inline void put_comma(Json *json, Byte **out) {
    put_all(out, json->comma, json->comma_size);
    json->comma_size = 0;
}

/* ---- numbers and constants */

static inline int is_digit(Byte c) { return c >= '0' && c <= '9'; }

static inline int is_in_word(Byte c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' || c == '.';
}

static inline size_t skip_digits(const Byte *word, size_t size, size_t at) {
    while (at < size && is_digit(word[at])) at++;
    return at;
}

/* The length of the longest beginning of the word that is a number; 0 if there is none. */
static inline size_t number_length(const Byte *word, size_t size) {
    size_t at = size != 0 && word[0] == '-';
    if (at == size || !is_digit(word[at])) return 0;
    at = word[at] == '0' ? at + 1 : skip_digits(word, size, at);
    if (at < size && word[at] == '.') {
        size_t end = skip_digits(word, size, at + 1);
        if (end > at + 1) at = end;
    }
    if (at < size && (word[at] == 'e' || word[at] == 'E')) {
        size_t begin = at + 1;
        if (begin < size && (word[begin] == '+' || word[begin] == '-')) begin++;
        size_t end = skip_digits(word, size, begin);
        if (end > begin) at = end;
    }
    return at;
}

/* Release the beginning of the word that is a number: whatever follows, it stays one. */
static inline void put_number(Json *json, Byte **out) {
    size_t number = number_length(json->word, json->word_size);
    if (number <= json->copied) return;
    put_comma(json, out);
    put_all(out, json->word + json->copied, number - json->copied);
    json->copied = number;
}

/* The word is complete. 0 if it is no JSON value. */
static inline int end_word(Json *json, Byte **out) {
    if (json->copied != json->word_size) {
        int is_constant = (json->word_size == 4 && memcmp(json->word, "true", 4) == 0) ||
                          (json->word_size == 4 && memcmp(json->word, "null", 4) == 0) ||
                          (json->word_size == 5 && memcmp(json->word, "false", 5) == 0);
        if (!is_constant) return 0;
        put_comma(json, out);
        put_all(out, json->word, json->word_size);
    }
    json->word_size = json->copied = 0;
    json->place = COMMA;
    return 1;
}

/* ---- strings */

/* Add the next byte to the escape that has begun, and release it if it is complete. 0 if it is no escape of JSON. */
static inline int read_in_escape(Json *json, Byte c, Byte **out) {
    int is_whole;
    if (json->escape_size == 1) {
        switch (c) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': is_whole = 1; break;
        case 'u': is_whole = 0; break;
        default: return 0;
        }
    } else {
        if (!is_digit(c) && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F')) return 0;
        is_whole = json->escape_size == ESCAPE_SIZE - 1;
    }
    json->escape[json->escape_size++] = c;
    if (is_whole) {
        put_all(out, json->escape, json->escape_size);
        json->escape_size = 0;
    }
    return 1;
}

/* Read on in a string, as far as it goes. Returns the first byte after what was read; NULL if Python must read it. */
static inline const Byte *read_in_string(Json *json, const Byte *at, const Byte *end, Byte **out) {
    if (json->escape_size != 0) return read_in_escape(json, *at, out) ? at + 1 : NULL;
    const Byte *run = at;
    while (at < end && *at >= 0x20 && *at != '"' && *at != '\\') at++;
    memcpy(*out, run, (size_t)(at - run));
    *out += at - run;
    if (at == end) return at;
    if (*at == '"') {
        put(out, '"');
        json->place = json->place == KEY_STRING ? COLON : COMMA;
    } else if (*at == '\\') {
        json->escape[0] = '\\';
        json->escape_size = 1;
    } else {
        return NULL; /* a control character */
    }
    return at + 1;
}

/* ---- structure */

static inline int may_close(const Json *json, Byte mark) {
    Byte open = json->stack[json->depth - 1];
    if (json->comma_size != 0 || open != (mark == '}' ? '{' : '[')) return 0;
    return json->place == COMMA || json->place == (mark == '}' ? KEY : VALUE);
}

/* Read a byte that is neither in a string nor in a word. 0 if Python must read it. */
static inline int read_mark(Json *json, Byte mark, Byte **out) {
    switch (mark) {
    case ' ': case '\t': case '\n': case '\r':
        if (json->comma_size == 0) {
            put(out, mark);
            return 1;
        }
        if (json->comma_size == MAX_COMMA) return 0;
        json->comma[json->comma_size++] = mark;
        return 1;
    case '"':
        if (json->place != KEY && json->place != VALUE) return 0;
        put_comma(json, out);
        json->place = json->place == KEY ? KEY_STRING : STRING;
        break;
    case '{': case '[':
        if (json->place != VALUE || json->depth == MAX_NESTING) return 0;
        put_comma(json, out);
        json->stack[json->depth++] = mark;
        json->place = mark == '{' ? KEY : VALUE;
        break;
    case '}': case ']':
        if (!may_close(json, mark)) return 0;
        json->depth--;
        json->place = COMMA;
        break;
    case ':':
        if (json->place != COLON) return 0;
        json->place = VALUE;
        break;
    case ',':
        if (json->place != COMMA) return 0;
        json->comma[0] = ',';
        json->comma_size = 1;
        json->place = json->stack[json->depth - 1] == '{' ? KEY : VALUE;
        return 1;
    default: return 0;
    }
    put(out, mark);
    return 1;
}

/* Read the piece from `at` to `end`, and write what can be released to `out`, as the inside of a JSON string.

   `out` has room for as many bytes as the piece has in a JSON string, and HELD_ROOM more. Returns 0 if Python must read
   the piece. */
static inline int json_read(Json *json, const Byte *at, const Byte *end, Byte **out) {
    while (at < end) {
        if (json->depth == 0) return 0; /* something after the object */
        if (json->place == STRING || json->place == KEY_STRING) {
            at = read_in_string(json, at, end, out);
            if (at == NULL) return 0;
        } else if (is_in_word(*at)) {
            if (json->place != VALUE) return 0;
            for (; at < end && is_in_word(*at); at++) {
                if (json->word_size == MAX_WORD) return 0;
                json->word[json->word_size++] = *at;
            }
            put_number(json, out);
        } else {
            if (json->word_size != 0 && !end_word(json, out)) return 0;
            if (!read_mark(json, *at, out)) return 0;
            at++;
        }
    }
    return 1;
}

#endif
