"""The register of the wire contract: each clause, in few words, and the tests that prove it.

A proof is `FILE::TEST`, or `FILE::TEST[ROW]` for a row of the table of peculiarities; files are under `tests`. It is
here so that the sentence "every clause has a test" can itself be tested: what is named must be there.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.engines.openai import test_peculiarities as peculiarities

TESTS = Path(__file__).parent
MESSAGE = "engines/openai/test_peculiarities.py::test_a_peculiarity_gives_its_message"
FAILURE = "engines/openai/test_peculiarities.py::test_a_failure_is_an_error_and_never_the_end_of_a_turn"

Clauses = dict[str, tuple[str, ...]]


def of(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{test}" for test in tests)


def rows(*names: str) -> tuple[str, ...]:
    """Rows of the table of peculiarities."""
    return tuple(f"{MESSAGE if peculiarities.CLAUSES[name].error is None else FAILURE}[{name}]" for name in names)


ROUTES: Clauses = {
    "create, under three prefixes": of(
        "http/test_messages_app.py", "messages_are_served_under_every_prefix_clients_use"
    ),
    "any query string": of("http/test_messages_app.py", "any_query_string_is_accepted"),
    "count_tokens": of("http/test_messages_app.py", "count_tokens_asks_the_engine_and_needs_no_max_tokens"),
    "models and one model, whose id may have slashes": of(
        "http/test_messages_app.py", "messages_are_served_under_every_prefix_clients_use", "an_unknown_model_is_a_404"
    ),
    "healthz and readyz": of(
        "http/test_messages_app.py", "what_clients_probe_answers_200", "readyz_follows_the_engine"
    ),
    "no one is let in while draining": of("cli/test_main.py", "nobody_new_is_let_in_after_a_signal"),
    "metrics": of("http/test_messages_app.py", "metrics_count_requests_and_tokens"),
    "HEAD and GET of what clients probe": of("http/test_messages_app.py", "what_clients_probe_answers_200"),
    "unknown path": of("http/test_messages_app.py", "an_unknown_path_is_a_404_in_the_envelope"),
    "wrong method, OPTIONS among them": of(
        "http/test_messages_app.py", "a_wrong_method_is_a_405_that_says_what_is_allowed"
    ),
}

AUTHENTICATION: Clauses = {
    "bearer and x-api-key are equal": of("http/test_messages_app.py", "either_header_admits_with_any_of_the_keys"),
    "a valid key in either is enough": of("http/test_auth.py", "one_valid_key_in_either_header_is_enough"),
    "constant time": of("http/test_auth.py", "every_key_offered_is_compared_with_every_key_known"),
    "several keys, from environment and file": of(
        "http/test_auth.py", "keys_of_the_environment_and_of_the_file_are_valid_together"
    ),
    "never logged": (
        *of("http/test_auth.py", "keys_never_print"),
        *of("http/test_messages_app.py", "one_log_line_a_request_without_content_or_keys"),
    ),
    "open only on loopback, a Unix socket, or by name": of(
        "http/test_auth.py",
        "the_service_is_open_where_only_this_machine_reaches_it",
        "the_service_is_open_on_a_unix_socket_and_by_name",
        "an_open_service_for_others_is_refused_with_the_three_ways_out",
    ),
    "anthropic-version and -beta have no effect": of(
        "http/test_claude_code.py", "a_tool_loop_of_three_turns_is_answered"
    ),
}

FIELDS: Clauses = {
    "model, max_tokens, messages are required": of("wire/test_request.py", "a_wrong_field_is_refused_by_its_path"),
    "no more than 100 000 messages": of("wire/test_request.py", "a_conversation_has_an_end"),
    "roles user, assistant and system": of("wire/test_request.py", "content_is_a_string_or_an_array_for_every_role"),
    "empty texts are skipped": (
        *of("engines/openai/test_chat_turns.py", "texts_of_a_turn_are_one_string_and_empty_ones_are_skipped"),
        *of("end_to_end/test_real_engine.py", "empty_text_blocks_change_nothing"),
    ),
    "system, string or blocks, is one message": of(
        "engines/openai/test_chat_request.py", "system_blocks_are_joined_into_one_message_at_the_head"
    ),
    "ranges of temperature, top_p, top_k, stop_sequences, stream": of(
        "wire/test_request.py", "a_field_is_read_by_its_rule", "a_wrong_field_is_refused_by_its_path"
    ),
    "top_k 0 is off": of("engines/openai/test_dialects.py", "top_k_zero_is_never_sent"),
    "metadata.user_id is the upstream's user": of(
        "engines/openai/test_chat_request.py", "sampling_and_user_are_passed_on"
    ),
    "thinking, where there is a switch": of(
        "engines/openai/test_chat_request.py", "thinking_is_switched_only_where_there_is_a_switch_and_the_client_spoke"
    ),
    "reasoning is told whether or not it was asked for, but by option": of(
        "http/test_message_response.py", "thinking_is_hidden_only_by_option_and_only_from_who_disabled_it"
    ),
    "tools, their schemas untouched": of(
        "engines/openai/test_chat_request.py", "tools_are_functions_and_their_schema_is_untouched"
    ),
    "what has no effect on a tool is dropped": of(
        "wire/test_request.py", "what_has_no_effect_here_is_taken_and_dropped"
    ),
    "server tools are refused with a code": (
        *of("wire/test_request.py", "a_server_tool_is_refused_with_a_code"),
        *of("http/test_claude_code.py", "the_web_search_tool_is_refused_by_its_name"),
    ),
    "server tools are dropped by setting": of(
        "wire/test_request_policy.py", "a_server_tool_is_dropped_and_named_when_the_operator_says_so"
    ),
    "two tools of one name": of("wire/test_request.py", "a_wrong_field_is_refused_by_its_path"),
    "tool_choice": of("engines/openai/test_chat_request.py", "a_tool_choice_is_told_in_the_engines_word"),
    "tool_choice by name": (
        *of("engines/openai/test_chat_request.py", "a_named_tool_choice_is_sent_by_name_or_narrowed_to_that_tool"),
        *of("end_to_end/test_real_engine.py", "the_named_tool_is_called_among_several"),
    ),
    "disable_parallel_tool_use": of("engines/openai/test_chat_request.py", "parallel_calls_can_be_ruled_out"),
    "output_config.effort": of("engines/openai/test_chat_request.py", "effort_goes_in_words_that_the_engine_knows"),
    "output_config.format": (
        *of("engines/openai/test_chat_request.py", "an_output_schema_arrives_as_it_was_sent"),
        *of("end_to_end/test_real_engine.py", "an_answer_takes_the_shape_of_a_schema"),
    ),
    "unknown fields and those without effect": of(
        "wire/test_request.py", "what_has_no_effect_here_is_taken_and_dropped"
    ),
    "thread": (
        *of("wire/test_request.py", "a_thread_that_goes_on_is_not_found_whatever_else_is_wrong"),
        *of("end_to_end/test_anthropic_sdk.py", "the_tool_runner_goes_on_without_the_threads_it_asks_for"),
    ),
    "null is absent": of("wire/test_request.py", "null_is_absent"),
    "no JSON does more than be refused": of(
        "wire/test_request.py", "any_json_is_taken_or_refused", "any_bytes_are_taken_or_refused"
    ),
}

BLOCKS: Clauses = {
    "every kind of block is taken": of(
        "wire/test_blocks.py",
        "a_good_block_is_taken_and_left_as_it_came",
        "every_kind_of_block_there_is_has_a_good_example_here",
    ),
    "what cannot be honoured is refused by name": of(
        "wire/test_blocks.py", "a_block_that_cannot_be_honoured_is_refused_by_its_path"
    ),
    "url images by setting only": of(
        "wire/test_request_policy.py", "an_image_url_passes_at_every_place_when_the_operator_says_so"
    ),
    "images and videos": of("engines/openai/test_chat_turns.py", "images_and_videos_keep_their_place_among_the_text"),
    "documents": of("engines/openai/test_chat_turns.py", "documents_are_told_with_title_and_context"),
    "search results and tool references": of(
        "engines/openai/test_chat_turns.py", "a_result_may_hold_documents_search_results_and_tool_references"
    ),
    "container uploads are dropped": of("engines/openai/test_chat_turns.py", "container_uploads_are_dropped"),
    "thinking history": (
        *of("engines/openai/test_chat_turns.py", "thinking_of_the_history_goes_where_the_engine_reads_it"),
        *of("end_to_end/test_real_engine.py", "the_engine_is_given_back_what_it_thought"),
    ),
    "server tools of the history become text": of(
        "engines/openai/test_chat_turns.py",
        "server_tools_of_the_history_become_text",
        "a_server_tool_call_of_the_history_is_told",
    ),
    "tool results, also empty": of("engines/openai/test_chat_turns.py", "an_empty_result_is_an_empty_text"),
    "results in another order than the calls": of(
        "engines/openai/test_chat_turns.py", "results_come_first_in_the_clients_order_then_the_text"
    ),
    "cache_control is never sent": (
        *of("engines/openai/test_chat_request.py", "cache_marks_stay_here"),
        *of("http/test_claude_code.py", "nothing_that_only_concerns_the_client_reaches_the_engine"),
    ),
    "order: results next to their calls, then the rest": of(
        "engines/openai/test_chat_turns.py",
        "results_come_first_in_the_clients_order_then_the_text",
        "nothing_stands_between_a_call_and_its_results",
        "results_always_stand_behind_their_call",
    ),
    "images of a result follow": of("engines/openai/test_chat_turns.py", "images_of_results_follow_as_a_user_message"),
    "is_error leaves a mark": of("engines/openai/test_chat_turns.py", "a_failed_result_carries_a_mark"),
    "a result without its call": of("wire/test_request.py", "results_without_their_call_are_refused"),
    "a late system message": of(
        "engines/openai/test_chat_request.py",
        "a_late_system_message_stays_in_its_place_as_marked_user_text",
        "a_late_system_message_keeps_its_role_where_the_template_takes_it",
    ),
    "the billing header": (
        *of("engines/openai/test_chat_request.py", "the_billing_header_is_taken_out"),
        *of("http/test_claude_code.py", "each_turns_prompt_begins_with_the_whole_of_the_turn_before"),
    ),
    "prefill": (
        *of("engines/openai/test_chat_request.py", "a_trailing_assistant_turn_is_continued_where_there_is_a_switch"),
        *of("end_to_end/test_real_engine.py", "a_prefill_is_continued_and_not_repeated"),
    ),
    "no text is lost": of("engines/openai/test_chat_turns.py", "no_text_of_a_client_is_lost"),
}

ANSWER: Clauses = {
    "all keys, always": (
        *of("http/test_message_response.py", "a_message_has_all_its_keys"),
        *of("wire/test_message.py", "a_message_has_all_its_keys_in_the_order_of_the_api"),
    ),
    "model as the client named it": of("end_to_end/test_real_engine.py", "the_model_is_called_as_the_client_calls_it"),
    "an empty text block only where nothing else is": (
        *of("wire/test_message.py", "an_empty_text_stands_only_where_content_would_be_empty"),
        *rows("an empty content and no more", "no content at all"),
    ),
    "stop_reason": (
        *of("wire/test_encoder.py", "the_stop_reason_fits_the_content"),
        *of("engines/openai/test_chunk_reader.py", "a_finish_reason_has_its_meaning"),
    ),
    "stop_sequence for every engine": (
        *of("http/test_message_response.py", "a_stop_sequence_is_found_across_deltas_and_closes_the_engine"),
        *of("replay/test_replay.py", "every_recorded_answer_is_the_same_message_streamed_and_whole"),
        *rows("a stop sequence that the engine leaves in the text"),
    ),
    "the stop sequence that completes first wins": of(
        "wire/test_stop_sequences.py",
        "the_match_that_completes_first_wins_and_the_longer_of_two",
        "any_stops_in_any_fragments_match_as_the_slow_search_does",
    ),
    "usage, with cached tokens apart": (
        *of("end_to_end/test_real_engine.py", "the_usage_is_the_engines_own_count_with_the_cached_tokens_apart"),
        *rows("cached prompt tokens"),
    ),
    "usage always has both integers": of("wire/test_message.py", "an_engine_that_counts_nothing_is_counted_for"),
    "arguments that are not JSON never break it": of(
        "wire/test_message.py", "a_call_whose_input_makes_no_sense_is_left_out_and_the_text_kept"
    ),
}

STREAM: Clauses = {
    "the headers": of("http/test_message_response.py", "the_head_of_a_stream_says_what_proxies_need_to_know"),
    "an event is two lines, its JSON one": of("wire/test_encoder.py", "no_character_of_a_text_breaks_the_line"),
    "the grammar": of(
        "wire/test_encoder.py",
        "a_cell_of_the_table_writes_its_events_and_leads_to_its_state",
        "no_cell_of_the_table_can_leave_the_grammar",
        "any_script_makes_a_stream_of_the_grammar",
    ),
    "nothing after an error": of("wire/test_encoder.py", "an_error_ends_a_stream_at_any_point_with_a_block_left_open"),
    "pings between events": of("wire/test_encoder.py", "a_ping_between_deltas_disturbs_no_block"),
    "message_start": of("wire/test_encoder.py", "the_bytes_of_message_start"),
    "input_tokens known, or estimated and corrected": (
        *of("wire/test_encoder.py", "an_estimate_is_corrected_in_message_delta"),
        *of("end_to_end/test_real_engine.py", "a_stream_tells_the_length_of_the_prompt_from_the_start"),
    ),
    "one block at a time, indices from 0": of(
        "wire/test_encoder.py", "one_block_is_open_at_a_time_and_indices_count_up"
    ),
    "one signature, not empty, before a thinking block's stop": of(
        "wire/test_encoder.py",
        "thinking_is_followed_by_one_signature_before_its_stop",
        "thinking_without_a_signature_gets_one_that_is_not_empty",
    ),
    "pieces of input join to its JSON": of(
        "wire/test_encoder.py", "the_pieces_of_a_tool_s_input_join_to_its_json_and_none_means_an_empty_object"
    ),
    "the starts of blocks": of(
        "wire/test_encoder.py",
        "the_bytes_of_a_text_block",
        "the_bytes_of_a_thinking_block",
        "the_bytes_of_a_tool_use_block",
    ),
    "interleaved calls are streamed and valid": (
        *of(
            "engines/shared/test_tool_calls.py",
            "any_interleaving_comes_out_whole_and_in_order",
            "the_next_call_opens_the_moment_the_one_before_is_whole",
        ),
        *rows("calls that interleave"),
    ),
    "text behind a call is a new block": (
        *of("wire/test_encoder.py", "text_after_a_tool_call_opens_a_new_text_block"),
        *rows("text behind a call"),
    ),
    "no empty deltas": of("wire/test_encoder.py", "what_is_empty_writes_nothing_and_closes_nothing"),
    "message_delta": of("wire/test_encoder.py", "the_bytes_of_the_end"),
    "no [DONE], no unknown event": (
        *of("conformance/test_grammar.py", "bytes_that_are_no_events_are_named"),
        *of("replay/test_golden.py", "a_golden_stream_keeps_the_grammar"),
    ),
    "an error before the first output has its status": of(
        "http/test_message_response.py", "an_error_before_the_first_output_keeps_its_own_status"
    ),
    "a long prefill commits the stream, and pings": of(
        "http/test_message_response.py",
        "a_long_prefill_commits_the_stream_with_message_start_and_pings",
        "silence_in_mid_stream_is_filled_with_pings",
        "an_error_after_pings_is_an_event",
    ),
    "breaking off is an error": (
        *of("http/test_message_response.py", "an_engine_that_ends_without_finish_has_broken_off"),
        *rows("an end without a finish reason", "HTML with status 200"),
    ),
    "streaming and not are equal": (
        *of("http/test_message_response.py", "streaming_and_non_streaming_answers_to_the_same_output_are_equal"),
        *of("wire/test_message.py", "a_message_is_the_one_its_stream_means"),
        *of("replay/test_replay.py", "every_recorded_answer_is_the_same_message_streamed_and_whole"),
    ),
    "whole blocks go out whole": (
        *of("wire/test_encoder.py", "the_bytes_of_a_whole_block", "fields_of_a_whole_block_pass_unchanged"),
        *of("engines/messages/test_engine.py", "blocks_and_fields_this_service_cannot_make_pass_unchanged"),
    ),
    "a relayed stream is repaired where it breaks the grammar": of(
        "engines/messages/test_engine.py",
        "blocks_that_overlap_come_out_one_after_the_other",
        "recorded_streams_come_out_by_the_grammar",
    ),
}

PECULIARITIES: Clauses = {
    "role-only, empty, null deltas": rows("a delta of nothing but a role", "empty and null content"),
    "reasoning and reasoning_content": rows("reasoning", "reasoning_content", "reasoning that is only blank"),
    "content and tool_calls in one delta": rows("content and a call in one delta"),
    "tool_calls: []": rows("tool_calls that are empty"),
    "no id, no index": rows("a call without an id", "calls without an index", "calls without an index or an id"),
    "same index, new id": rows("the same index with a new id"),
    "id and name repeated": rows("id and name repeated in every chunk"),
    "name split": rows("a name split over chunks"),
    "arguments as an object, absent, escaped": rows(
        "arguments as an object", "a call without arguments", "arguments that are a string of JSON"
    ),
    "stop though tools were called": rows("finish stop though tools were called"),
    "finish reasons": rows(
        *("finish tool_calls", "finish tool_calls though none was called", "finish function_call", "finish length"),
        *("finish length with the last text", "finish length behind a whole call", "finish content_filter"),
        "finish eos_token",
    ),
    "the matched stop, or a token id": rows(
        *("vLLM's stop_reason holds the stop sequence", "vLLM's stop_reason holds a token id"),
        *("SGLang's matched_stop holds the stop sequence", "SGLang's matched_stop holds a token id"),
    ),
    "abort and error": rows("finish abort", "finish error"),
    "function_call of old": rows("the function_call of old"),
    "refusal": rows("a refusal"),
    "usage": rows(
        *("usage in every chunk", "usage in the finish chunk", "usage in a chunk with empty choices", "no usage")
    ),
    "deltas after finish": rows("deltas behind the finish"),
    "no [DONE]": rows("no [DONE]"),
    "CRLF, comments, U+2028, other lines, no space, several data lines, BOM, any fragment": rows(
        *("lines that end in CRLF", "comments", "U+2028 and UTF-8 split across reads", "event, id and retry lines"),
        *("no space behind data", "several data lines", "a byte order mark"),
    ),
    "100 identical chunks": rows("a hundred identical chunks"),
    "an error object as a chunk": rows(
        *("an error object first", "an error object that says busy first", "an error object in mid-stream")
    ),
    "invalid JSON chunk": rows("an invalid JSON chunk", "an invalid JSON chunk first"),
    "HTML with status 200, an empty body": rows("HTML with status 200", "an empty body", "nothing but [DONE]"),
    "reset, clean EOF, stall": rows(
        *("a connection reset", "a clean EOF in a chunked body", "a clean EOF of a close-delimited body", "a stall"),
        "an end without a finish reason",
    ),
    "every framing": rows("a body in chunks", "a body of a known length", "a body that the connection's end closes"),
    "200 JSON to a streaming request": rows("a JSON answer to a streaming request"),
    "max_tokens inside tool arguments": rows(
        "max_tokens inside a call's arguments", "max_tokens before a call's arguments make any sense"
    ),
    "think tags, when the operator says so": rows(
        "think tags when the operator says so", "think tags when nobody says so"
    ),
    "the recorded engines": of(
        "replay/test_replay.py",
        "every_recorded_answer_is_the_same_message_streamed_and_whole",
        "a_stream_says_what_the_engine_itself_says_without_stream",
        "a_recorded_stream_in_single_bytes_is_the_same_message",
        "every_recorded_breakdown_is_an_error_and_never_the_end_of_a_turn",
    ),
}

ERRORS: Clauses = {
    "the envelope": of("wire/test_errors.py", "the_envelope_is_these_bytes"),
    "each status and type": of("wire/test_errors.py", "each_error_has_its_status_and_type"),
    "validation says path: reason": (
        *of("http/test_messages_app.py", "a_bad_body_is_a_400_that_names_the_path"),
        *of("wire/test_blocks.py", "the_fault_is_named_by_the_number_of_its_block"),
    ),
    "never internals": (
        *of("engines/shared/test_upstream_errors.py", "no_recorded_error_shows_what_is_inside_an_engine"),
        *of("http/test_message_response.py", "a_bug_of_the_engine_is_a_bare_500"),
    ),
    "400: upstream 400 and 422": of(
        "replay/test_replay.py", "every_recorded_refusal_reaches_the_client_in_the_engines_words"
    ),
    "400: prompt is too long": (
        *of("replay/test_replay.py", "every_recorded_overflow_is_said_in_the_words_clients_act_on"),
        *of("end_to_end/test_real_engine.py", "a_prompt_beyond_the_window_says_so_in_the_words_clients_compact_on"),
    ),
    "401": of("http/test_messages_app.py", "without_a_valid_key_it_is_a_401"),
    "404: path, a model the engine does not know": (
        *of("http/test_messages_app.py", "an_unknown_path_is_a_404_in_the_envelope"),
        *of("engines/openai/test_detection.py", "a_model_that_the_engine_does_not_have_is_not_found"),
    ),
    "405": of("http/test_messages_app.py", "a_wrong_method_is_a_405_that_says_what_is_allowed"),
    "413, before it is read to the end": of(
        "http/test_messages_app.py",
        "a_body_over_the_limit_is_a_413_before_it_is_read_to_the_end",
        "a_body_announced_over_the_limit_is_a_413_before_anything_is_read",
    ),
    "415; gzip and deflate, bounded": of(
        "http/test_messages_app.py",
        "an_unknown_content_encoding_is_a_415",
        "compressed_bodies_are_read",
        "a_small_bomb_is_a_413",
    ),
    "429, with retry-after": of(
        "engines/openai/test_engine.py",
        "a_status_becomes_its_error_with_retry_after",
        "an_engines_advice_on_asking_again_is_passed_on",
    ),
    "500: upstream 500": of("replay/test_replay.py", "every_recorded_failure_is_told_without_the_engines_words"),
    "500: our credential": of("end_to_end/test_tls.py", "a_key_the_engine_refuses_is_our_fault_and_shown_to_nobody"),
    "502": of("engines/openai/test_engine.py", "an_answer_that_is_none_or_breaks_off_is_an_error"),
    "504": of("engines/openai/test_engine.py", "no_first_byte_is_a_timeout", "a_stall_in_mid_stream_is_an_error"),
    "529: our limit, an engine that is away or busy": of(
        "engines/openai/test_engine.py",
        "no_free_connection_is_overload",
        "an_engine_that_is_down_is_overloaded_and_may_be_asked_again",
        "a_status_becomes_its_error_with_retry_after",
    ),
    "mid-stream": (
        *of("http/test_message_response.py", "an_error_in_mid_stream_is_an_event_and_the_end"),
        *of("http/test_claude_code.py", "after_an_error_in_mid_stream_it_may_ask_again_without_stream"),
    ),
    "request-id, and the same in the log": (
        *of("http/test_messages_app.py", "every_response_has_a_request_id_of_its_own"),
        *of("end_to_end/test_anthropic_sdk.py", "the_request_id_of_a_response_is_in_the_log"),
    ),
    "the engine's words reach the client for 4xx, trimmed; else the log": (
        *of("engines/shared/test_upstream_errors.py", "stacks_paths_and_length_are_trimmed"),
        *of("engines/openai/test_engine_detection.py", "what_a_failing_engine_says_is_for_neither_client_nor_log"),
    ),
}

DIALECTS: Clauses = {
    "detected at start-up": (
        *of("engines/openai/test_dialects.py", "a_recorded_model_list_tells_its_engine"),
        *of("engines/openai/test_engine_detection.py", "the_dialect_is_detected_at_the_start_and_spoken"),
    ),
    "or set by the operator": of("engines/openai/test_engine_detection.py", "a_chosen_dialect_is_never_asked_for"),
    "again after it was away": of(
        "engines/openai/test_engine_detection.py", "an_engine_that_was_away_is_asked_anew_who_it_is"
    ),
    "thinking, effort, prefill, top_k, structured output, late system": of(
        "engines/openai/test_chat_request.py",
        "thinking_is_switched_only_where_there_is_a_switch_and_the_client_spoke",
        "effort_goes_in_words_that_the_engine_knows",
        "a_trailing_assistant_turn_is_continued_where_there_is_a_switch",
        "top_k_goes_only_where_it_is_known_and_zero_goes_nowhere",
        "an_output_schema_arrives_as_it_was_sent",
        "a_late_system_message_keeps_its_role_where_the_template_takes_it",
    ),
    "early usage": (
        *of("engines/openai/test_chat_request.py", "early_usage_is_asked_for_where_it_is_known"),
        *of("engines/openai/test_dialects.py", "the_counts_come_early_where_an_engine_can_tell_them"),
    ),
    "again when another took its place": of(
        "engines/openai/test_detection.py", "another_engine_on_the_same_address_is_spoken_to_in_its_own_dialect"
    ),
    "token counts": of(
        "engines/openai/test_count_tokens.py",
        "a_recorded_count_is_the_recorded_usage_of_that_request",
        "llamacpp_counts_the_request_as_it_stands",
    ),
    "model list and limits": (
        *of("engines/openai/test_engine_detection.py", "a_recorded_model_list_is_told"),
        *of("engines/shared/test_model_list.py", "a_window_is_known_by_name_or_because_there_is_only_one_model"),
    ),
    "the window: never below what was asked and fits": of(
        "engines/openai/test_windows.py",
        "what_fits_the_window_is_never_cut_beforehand",
        "an_engine_that_takes_any_length_is_told_what_the_client_asked_for",
    ),
    "nothing that would be refused": of("engines/openai/test_dialects.py", "no_engine_is_sent_a_field_it_would_refuse"),
}

MODELS: Clauses = {
    "the shape, for both kinds of clients": of(
        "http/test_messages_app.py", "the_model_list_has_anthropics_shape_and_openais_keys"
    ),
    "limit, after_id, before_id": of("http/test_messages_app.py", "the_model_list_is_walked_forth_and_back"),
    "an unknown cursor": of("http/test_messages_app.py", "a_bad_page_is_a_400"),
    "aliases are listed and used": of(
        "http/test_messages_app.py",
        "aliases_rename_the_model_for_the_engine_and_not_for_the_client",
        "exact_aliases_are_listed_with_the_limits_of_what_they_stand_for",
    ),
    "useful while the engine is down": of(
        "engines/shared/test_model_list.py", "the_last_list_is_told_while_the_engine_is_away"
    ),
    "limits of the real engine": of("end_to_end/test_real_engine.py", "the_models_are_the_engines_with_its_window"),
}

COUNTING: Clauses = {
    "generation fields are ignored": of(
        "wire/test_request.py", "counting_needs_no_max_tokens_and_ignores_what_is_about_generation"
    ),
    "the same validation": of("wire/test_request.py", "counting_validates_everything_else"),
    "the count is usage.input_tokens": (
        *of("engines/openai/test_count_tokens_real.py", "the_count_is_the_usage"),
        *of("http/test_claude_code.py", "a_burst_of_counts_on_the_real_engine_equals_its_usage"),
    ),
    "else by a tokenizer file": (
        *of(
            "engines/openai/test_tokenizer_file.py",
            "texts_and_turns_are_counted",
            "tools_calls_and_results_are_counted",
        ),
        *of("http/test_prompt_tokens.py", "the_best_count_is_given_and_marked_if_it_is_not_the_engines"),
    ),
    "else an estimate of everything, which says so": (
        *of("wire/test_estimate.py", "words_are_counted_wherever_they_stand", "system_and_tools_are_counted"),
        *of("wire/test_estimate.py", "an_image_has_a_price_of_its_own_wherever_it_stands"),
        *of("http/test_messages_app.py", "an_estimated_count_says_that_it_is_one"),
    ),
}

SECTIONS: dict[str, Clauses] = {
    "1 routes": ROUTES,
    "2 authentication": AUTHENTICATION,
    "3 fields": FIELDS,
    "3 blocks": BLOCKS,
    "4 answer": ANSWER,
    "5 stream": STREAM,
    "6 peculiarities": PECULIARITIES,
    "7 errors": ERRORS,
    "8 dialects": DIALECTS,
    "9 models": MODELS,
    "10 count_tokens": COUNTING,
}
REGISTER = [(f"{section}: {clause}", proofs) for section, part in SECTIONS.items() for clause, proofs in part.items()]


@cache
def names_in(file: str) -> frozenset[str]:
    """The names of the tests that pytest collects from a file."""
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


@pytest.mark.parametrize(("clause", "proofs"), REGISTER, ids=[clause for clause, _ in REGISTER])
def test_every_clause_of_the_contract_has_a_test(clause: str, proofs: tuple[str, ...]) -> None:
    assert proofs
    for proof in proofs:
        file, _, test = proof.partition("[")[0].partition("::")
        assert test in names_in(file), proof


def test_every_peculiarity_that_is_tested_is_a_clause() -> None:
    proofs = {proof for _, proofs in REGISTER for proof in proofs}
    assert [row for row in peculiarities.CLAUSES if not proofs & set(rows(row))] == []
