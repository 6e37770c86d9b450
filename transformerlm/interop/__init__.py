"""Models and tokenizers that leave home, and others that move in.

tokenizer_json.py, tiktoken_ranks.py    vocabularies in the formats of Hugging Face and tiktoken

What cannot be expressed on the other side is refused in a sentence; nothing is approximated silently.
"""
