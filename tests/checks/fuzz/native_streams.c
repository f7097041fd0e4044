/* Mutated streams through `convert`, without Python: for AddressSanitizer and UndefinedBehaviorSanitizer.

   usage: native_streams COUNT SEED

   The streams are those of `native_stream.h`. If one is not mutated, the output must be the known one. If it is, the
   output must be a sequence of whole client events with valid JSON strings, and the same when the stream arrives in two
   parts. The input is in a block of memory of exactly its size. What the client gets of arguments and what is held back
   must be the text that was read. Prints a summary; exit status 1 for a breach. */

#include "../../../anthro_asgi/_native/convert.h"

#include "native_stream.h"

/* Whether `out` consists of `deltas` client events, each with a JSON string as orjson writes it. */
static int is_valid(const Template *template, const Buffer *out, size_t deltas) {
    const Byte *at = out->data, *end = out->data + out->size;
    for (; deltas != 0; deltas--) {
        if (!starts_with(at, end, template->opening)) return 0;
        at += template->opening.size;
        if (at == end || *at++ != '"') return 0;
        while (at < end && *at != '"') {
            if (*at < 0x20) return 0;
            if (*at == '\\') {
                if (end - at < 6) return 0;
                if (at[1] == 'u' ? memcmp(at, "\\u00", 4) != 0 : strchr("\"\\bfnrt", at[1]) == NULL) return 0;
                at += at[1] == 'u' ? 6 : 2;
            } else if (*at < 0x80) {
                at++;
            } else {
                size_t length = utf8_length(at, end);
                if (length == 0) return 0;
                at += length;
            }
        }
        if (at == end) return 0;
        at++;
        if (!starts_with(at, end, template->closing)) return 0;
        at += template->closing.size;
    }
    return at == end;
}

/* Whether the conversion of the whole stream is right: what is known of it, and the form of the client's events. */
static int is_right(const Drawn *drawn, Outcome outcome, const Input *input, const Buffer *out, const Result *result) {
    const Template *template = drawn->template;
    int good = outcome != NO_MEMORY && result->consumed <= drawn->data.size && result->silent <= result->deltas;
    good = good && is_valid(template, out, result->deltas - result->silent);
    good = good && (outcome != ALL || result->consumed == drawn->data.size);
    if (!drawn->is_mutated && template->max_event > 60 && (!drawn->is_input || drawn->known.size <= MAX_UNREAD)) {
        const Buffer *found = drawn->is_input ? &input->text : out;
        good = good && outcome == ALL && result->deltas == drawn->events && found->size == drawn->known.size &&
               memcmp(found->data, drawn->known.data, found->size) == 0;
    }
    return good && (!drawn->is_input || is_complete(template, input, out));
}

/* Whether the stream gives the same when it arrives in two parts. */
static int is_same_in_parts(const Template *template, int is_input, const Buffer *stream, const Buffer *whole,
                            const Result *all) {
    size_t cut = below(stream->size + 1);
    Buffer out = {NULL, 0, 0};
    Input parts, *input = is_input ? &parts : NULL;
    begin_input(&parts);
    Result first, second = {0, 0, 0, {NULL, 0}};
    Outcome outcome = run(template, input, stream->data, cut, &out, &first);
    if (outcome != OTHER)
        run(template, input, stream->data + first.consumed, stream->size - first.consumed, &out, &second);
    size_t deltas = first.deltas + second.deltas;
    int same = out.size <= whole->size && (out.size == 0 || memcmp(out.data, whole->data, out.size) == 0);
    if (outcome != OTHER) same = same && deltas == all->deltas && first.consumed + second.consumed == all->consumed;
    if (is_input) same = same && is_complete(template, input, &out);
    buffer_free(&out);
    buffer_free(&parts.text);
    return same;
}

int main(int arguments, char **argument) {
    unsigned long count = arguments > 1 ? strtoul(argument[1], NULL, 10) : 100000;
    unsigned long long seed = arguments > 2 ? strtoull(argument[2], NULL, 10) : 1;
    unsigned long whole = 0, part = 0, none = 0, calls = 0;
    for (unsigned long number = 0; number < count; number++) {
        Drawn drawn;
        draw(seed, number, &drawn);
        Buffer out = {NULL, 0, 0};
        Input state_of_call, *input = drawn.is_input ? &state_of_call : NULL;
        begin_input(&state_of_call);
        Result result;
        Outcome outcome = run(drawn.template, input, drawn.data.data, drawn.data.size, &out, &result);
        if (!is_right(&drawn, outcome, &state_of_call, &out, &result) ||
            !is_same_in_parts(drawn.template, drawn.is_input, &drawn.data, &out, &result)) {
            printf("FAILED: stream %lu of seed %llu: %.*s\n", number, seed, (int)drawn.data.size,
                   (const char *)drawn.data.data);
            return 1;
        }
        if (result.consumed == drawn.data.size) whole++;
        else if (result.consumed != 0) part++;
        else none++;
        if (input != NULL) calls++;
        free_drawn(&drawn);
        buffer_free(&out);
        buffer_free(&state_of_call.text);
    }
    printf("%lu streams, %lu of them arguments: %lu converted whole, %lu in part, %lu not at all\n", count, calls, whole, part,
           none);
    return 0;
}
