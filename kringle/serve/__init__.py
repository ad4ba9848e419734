"""A completion server for editors: OpenAI's, Mistral's, llama.cpp's, TGI's and Ollama's requests on one engine.

`kringle.serve.app.build` makes the application out of models and settings; `kringle serve` runs it. A request of any
dialect becomes one `kringle.serve.completing.Asked`, and one `Generation` turns it into text.
"""
