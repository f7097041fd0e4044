"""An upstream that speaks chat completions."""
