"""A real llama.cpp server for tests, with a model that is made on the spot and always says the same."""
