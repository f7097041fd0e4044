"""A GGUF model file, served by llama.cpp in a child process (extra `llama`)."""
