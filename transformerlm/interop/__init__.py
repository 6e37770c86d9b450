"""Models and tokenizers that leave home, and others that move in.

    splitting.py, tokenizer_json.py, tiktoken_ranks.py    vocabularies for Hugging Face and tiktoken, and from them
    llama.py                our shape and weight names as those of Llama's family, and back
    plain_llama.py          Llama's forward pass, written anew: every export is held against it
    huggingface.py          a folder for transformers; remote_code/ is what a diffusion model's folder carries with it
    huggingface_import.py   such a folder as a model of ours; adoption.py gives its tokenizer the special tokens
    gguf_file.py            one file for llama.cpp
    model_card.py           the README.md of a folder
    appearing.py            files that appear when they are whole

What cannot be expressed on the other side is refused in a sentence; nothing is approximated silently.
"""
