"""An upstream that speaks the Messages API: its answers are relayed and repaired."""
