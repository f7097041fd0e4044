/* Mutated streams of an engine, and what the conversion alone makes of them: the input and the oracle of two programs.

   `draw` makes the stream of a seed and a number. A stream is built of pieces whose conversion is known, and then three of
   four are mutated. A third of the streams are the arguments of a tool call, which begin as the value of a key. Include
   `convert.h` first. */

#ifndef NATIVE_STREAM_H
#define NATIVE_STREAM_H

#include <stdio.h>

#define BYTES(text) {(const Byte *)(text), sizeof(text) - 1}

static const struct {
    Bytes in, out;
} pieces[] = {
    {BYTES(" the"), BYTES(" the")},
    {BYTES("\\n"), BYTES("\\n")},
    {BYTES("\\\""), BYTES("\\\"")},
    {BYTES("\\\\"), BYTES("\\\\")},
    {BYTES("\\/"), BYTES("/")},
    {BYTES("\\u0041"), BYTES("A")},
    {BYTES("\\u001F"), BYTES("\\u001f")},
    {BYTES("\\u0009\\u000a\\u0022\\u005c"), BYTES("\\t\\n\\\"\\\\")},
    {BYTES("\\u00e9\\u6f22"), BYTES("\xc3\xa9\xe6\xbc\xa2")},
    {BYTES("\\ud83d\\uDE42"), BYTES("\xf0\x9f\x99\x82")},
    {BYTES("\xc3\xa9\xf0\x9f\x99\x82\x7f"), BYTES("\xc3\xa9\xf0\x9f\x99\x82\x7f")},
    {BYTES("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"), BYTES("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf")},
    {BYTES("a long piece of text, longer than most tokens are"), BYTES("a long piece of text, longer than most tokens are")},
};
static const Bytes scraps[] = {
    BYTES("\""), BYTES("\\"), BYTES("\\u12"), BYTES("\\ud83d"), BYTES("\\ude42"), BYTES("\xff"), BYTES("\xc3"), BYTES("\xed\xa0\x80"),
    BYTES("\xf4\x90\x80\x80"), BYTES("\xc0\x80"), BYTES("\n"), BYTES("\r\n"), BYTES("\n\n"), BYTES("0"), BYTES("00"), BYTES("9999999999999999"),
    BYTES("-1"), BYTES("1e5"), BYTES("ffffffff"), BYTES("data: "), BYTES(";x=1"), BYTES("{"), BYTES("}"), BYTES("\xe2\x80\xa8"), BYTES(" "),
};
static const Template templates[] = {
    {BYTES("data: {\"delta\":{\"content\":"), BYTES("}}\n\n"), BYTES(""), BYTES("event: e\ndata: {"), BYTES("}\n\n"), 1 << 20},
    {BYTES("data: {\"delta\":{\"content\":"), BYTES("},\"usage\":"), BYTES("{\"a\":0,\"b\":{\"c\":0}}}\n\n"), BYTES("event: e\ndata: {"),
     BYTES("}\n\n"), 1 << 20},
    {BYTES("data: {\"delta\":{\"content\":"), BYTES("}}\n\n"), BYTES(""), BYTES("event: e\ndata: {"), BYTES("}\n\n"), 60},
};

static _Thread_local unsigned long long state = 1;

static size_t below(size_t limit) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state >> 16) % limit;
}

static void add(Buffer *buffer, Bytes bytes) {
    if (!buffer_add(buffer, bytes.data, bytes.size)) abort();
}

static void add_chunk(Buffer *stream, const Buffer *body) {
    char line[32];
    int length = snprintf(line, sizeof line, below(2) ? "%zx\r\n" : "%04zX\r\n", body->size);
    add(stream, (Bytes){(const Byte *)line, (size_t)length});
    add(stream, (Bytes){body->data, body->size});
    add(stream, (Bytes){(const Byte *)"\r\n", 2});
}

static void add_counts(Buffer *body, Bytes numberless) {
    for (size_t i = 0; i < numberless.size; i++) {
        if (numberless.data[i] != '0') {
            add(body, (Bytes){numberless.data + i, 1});
            continue;
        }
        char number[24];
        size_t limits[] = {2, 10, 1000, 999999999999999};
        int length = snprintf(number, sizeof number, "%zu", below(limits[below(4)]));
        add(body, (Bytes){(const Byte *)number, (size_t)length});
    }
}

/* A stream of up to eight events, and what becomes of it. Returns the number of events. */
static size_t build(const Template *template, Buffer *stream, Buffer *expected) {
    Buffer body = {NULL, 0, 0};
    size_t events = 1 + below(8), together = 1 + below(3);
    for (size_t event = 0; event < events; event++) {
        add(&body, template->before);
        add(expected, template->opening);
        add(&body, (Bytes)BYTES("\""));
        add(expected, (Bytes)BYTES("\""));
        for (size_t left = 1 + below(4); left != 0; left--) {
            size_t piece = below(sizeof pieces / sizeof *pieces);
            add(&body, pieces[piece].in);
            add(expected, pieces[piece].out);
        }
        add(&body, (Bytes)BYTES("\""));
        add(expected, (Bytes)BYTES("\""));
        add(&body, template->after);
        add(expected, template->closing);
        add_counts(&body, template->numberless);
        if (event % together == together - 1 || event == events - 1) {
            add_chunk(stream, &body);
            body.size = 0;
        }
    }
    buffer_free(&body);
    return events;
}

/* ---- arguments */

static const Bytes place = BYTES("{v");
static const Bytes values[] = {
    BYTES("\"\""), BYTES("\"Paris\""), BYTES("\"a\\nb\\\"c\\\\\""), BYTES("\"\\u00e9\\ud83d\\ude42\\/\""), BYTES("\"\xe6\xbc\xa2\xf0\x9f\x99\x82\x7f\""),
    BYTES("\"{\\\"a\\\":[1,\""), BYTES("true"), BYTES("false"), BYTES("null"), BYTES("0"), BYTES("-0.5"), BYTES("1e30"), BYTES("12345.678E-9"), BYTES("{}"), BYTES("[]"),
    BYTES("\"a long string, which arrives in several pieces, as it is with the content of a file\""),
};
static const Bytes spaces[] = {BYTES(""), BYTES(""), BYTES(""), BYTES(" "), BYTES("\n  "), BYTES("\t\r\n")};

static void add_space(Buffer *text) { add(text, spaces[below(sizeof spaces / sizeof *spaces)]); }

static void add_value(Buffer *text, int levels) {
    size_t kind = levels == 0 ? 2 : below(5);
    if (kind > 1) {
        add(text, values[below(sizeof values / sizeof *values)]);
        return;
    }
    add(text, kind == 0 ? (Bytes)BYTES("{") : (Bytes)BYTES("["));
    add_space(text);
    for (size_t left = below(4), first = 1; left != 0; left--, first = 0) {
        if (!first) add(text, (Bytes)BYTES(","));
        add_space(text);
        if (kind == 0) {
            add(text, (Bytes)BYTES("\"key\\t\""));
            add_space(text);
            add(text, (Bytes)BYTES(":"));
            add_space(text);
        }
        add_value(text, levels - 1);
        add_space(text);
    }
    add(text, kind == 0 ? (Bytes)BYTES("}") : (Bytes)BYTES("]"));
}

/* Bytes as the inside of a JSON string. */
static void add_encoded(Buffer *body, Bytes text) {
    for (size_t i = 0; i < text.size; i++) {
        Byte c = text.data[i];
        char escape[8];
        if (c == '"' || c == '\\') snprintf(escape, sizeof escape, "\\%c", c);
        else if (c < 0x20 || (c < 0x7f && below(40) == 0)) snprintf(escape, sizeof escape, "\\u%04x", c);
        else snprintf(escape, sizeof escape, "%c", c);
        add(body, (Bytes){(const Byte *)escape, strlen(escape)});
    }
}

/* Insert or overwrite something that has to be repaired, or that is too long to be held back. */
static void spoil(Buffer *text) {
    static const Bytes spoiling[] = {
        BYTES("\""), BYTES("\\"), BYTES("\\x"), BYTES("\\u12"), BYTES(","), BYTES("}"), BYTES("]"), BYTES("{"), BYTES("["), BYTES(":"), BYTES("True"),
        BYTES("01"), BYTES("1."), BYTES("-"), BYTES("\n"), BYTES("'"), BYTES("\xc3\xa9"),
    };
    size_t at = below(text->size + 1), to = at + below(3);
    while (at < text->size && (text->data[at] & 0xc0) == 0x80) at++; /* not inside a character */
    if (to < at) to = at;
    while (to < text->size && (text->data[to] & 0xc0) == 0x80) to++;
    if (to > text->size) to = text->size;
    Buffer changed = {NULL, 0, 0};
    add(&changed, (Bytes){text->data, at});
    if (below(2) == 0) {
        Byte filler = " \n1e"[below(4)];
        if (below(2) == 0) add(&changed, (Bytes)BYTES(","));
        for (size_t left = 50 + below(100); left != 0; left--) add(&changed, (Bytes){&filler, 1});
    } else {
        add(&changed, spoiling[below(sizeof spoiling / sizeof *spoiling)]);
    }
    add(&changed, (Bytes){text->data + to, text->size - to});
    buffer_free(text);
    *text = changed;
}

/* A stream of pieces of arguments, and their text. Returns the number of events. */
static size_t build_input(const Template *template, int is_spoiled, Buffer *stream, Buffer *text) {
    add_value(text, 3);
    for (size_t left = below(3); left != 0; left--) {
        add(text, (Bytes)BYTES(", \"b\":"));
        add_value(text, 2);
    }
    if (below(2)) add(text, (Bytes)BYTES("}"));
    if (is_spoiled) spoil(text);
    Buffer body = {NULL, 0, 0};
    size_t events = 0, together = 1 + below(3), longest = 1 + below(below(2) ? 4 : 60);
    for (size_t at = 0; at < text->size; events++) {
        size_t to = at + 1 + below(longest);
        while (to < text->size && (text->data[to] & 0xc0) == 0x80) to++; /* not inside a character */
        if (to > text->size) to = text->size;
        add(&body, template->before);
        add(&body, (Bytes)BYTES("\""));
        add_encoded(&body, (Bytes){text->data + at, to - at});
        add(&body, (Bytes)BYTES("\""));
        add(&body, template->after);
        add_counts(&body, template->numberless);
        at = to;
        if (events % together == together - 1 || at == text->size) {
            add_chunk(stream, &body);
            body.size = 0;
        }
    }
    buffer_free(&body);
    return events;
}

/* The text of the client's events. */
static void add_released(Buffer *text, const Template *template, const Buffer *out) {
    const Byte *at = out->data, *end = out->data + out->size;
    while (at < end) {
        for (at += template->opening.size + 1; *at != '"'; at++) {
            Byte c = *at;
            if (c == '\\') {
                c = *++at;
                c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
            }
            add(text, (Bytes){&c, 1});
        }
        at += 1 + template->closing.size;
    }
}

/* Whether the client's events and what is held back are the text that was read. */
static int is_complete(const Template *template, const Input *input, const Buffer *out) {
    const Json *json = &input->json;
    Buffer text = {NULL, 0, 0};
    add_released(&text, template, out);
    add(&text, (Bytes){json->comma, json->comma_size});
    add(&text, (Bytes){json->word + json->copied, json->word_size - json->copied});
    add(&text, (Bytes){json->escape, json->escape_size});
    int same = text.size == input->text.size && (text.size == 0 || memcmp(text.data, input->text.data, text.size) == 0);
    buffer_free(&text);
    return same;
}

static void begin_input(Input *input) {
    memset(input, 0, sizeof *input);
    if (!json_begin(&input->json, place.data, place.size)) abort();
}

/* Insert, overwrite, remove, repeat or cut off something, somewhere. */
static void mutate(Buffer *stream) {
    for (size_t left = 1 + below(3); left != 0; left--) {
        size_t at = below(stream->size + 1);
        size_t to = at + below(1 + (below(4) ? 3 : 40));
        if (to > stream->size) to = stream->size;
        Buffer changed = {NULL, 0, 0};
        add(&changed, (Bytes){stream->data, at});
        switch (below(6)) {
        case 0: add(&changed, scraps[below(sizeof scraps / sizeof *scraps)]); to = at; break;
        case 1: add(&changed, scraps[below(sizeof scraps / sizeof *scraps)]); break;
        case 2: break;
        case 3: add(&changed, (Bytes){stream->data + at, to - at}); to = at; break;
        case 4: to = stream->size; break;
        default:
            if (at < stream->size) {
                Byte flipped = (Byte)(stream->data[at] ^ 1 << below(8));
                add(&changed, (Bytes){&flipped, 1});
                to = at + 1;
            } else {
                to = at;
            }
        }
        add(&changed, (Bytes){stream->data + to, stream->size - to});
        buffer_free(stream);
        *stream = changed;
    }
}

/* Convert a copy of the bytes, in a block of exactly their size. */
static Outcome run(const Template *template, Input *input, const Byte *data, size_t size, Buffer *out, Result *result) {
    Byte *copy = malloc(size);
    if (size != 0 && copy == NULL) abort();
    if (size != 0) memcpy(copy, data, size);
    Outcome outcome = convert_input(template, input, copy, size, out, result);
    if (result->counts.size != 0 && (result->counts.data < copy || result->counts.data + result->counts.size > copy + size)) abort();
    result->counts = (Bytes){NULL, 0};
    free(copy);
    return outcome;
}

/* ---- one stream */

typedef struct {
    const Template *template;
    int is_input, is_mutated;
    Buffer data;
    Buffer known;   /* the client's events, or the text of the arguments; of a stream that is not mutated */
    size_t events;  /* as above */
} Drawn;

static void draw(unsigned long long seed, unsigned long number, Drawn *drawn) {
    state = (seed + 1) * 0x9e3779b97f4a7c15ULL ^ (number + 1) * 0xbf58476d1ce4e5b9ULL;
    if (state == 0) state = 1;
    below(2);
    *drawn = (Drawn){.template = &templates[below(sizeof templates / sizeof *templates)]};
    drawn->is_input = below(3) == 0;
    drawn->is_mutated = below(4) != 0;
    int is_spoiled = drawn->is_mutated && drawn->is_input && below(2) != 0;
    drawn->events = drawn->is_input ? build_input(drawn->template, is_spoiled, &drawn->data, &drawn->known)
                                    : build(drawn->template, &drawn->data, &drawn->known);
    if (drawn->is_mutated && (!is_spoiled || below(4) == 0)) mutate(&drawn->data);
}

static void free_drawn(Drawn *drawn) {
    buffer_free(&drawn->data);
    buffer_free(&drawn->known);
}

#endif
