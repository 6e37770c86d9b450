"""What transformers itself makes of our folders, and we of its own: the independent judge of the exchange."""

import re

import pytest
import torch

from tests.interop.models import SHAPES, learn_tokenizer, make_loaded
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.interop.huggingface import export_huggingface, write_tokenizer_files
from transformerlm.interop.huggingface_import import import_huggingface
from transformerlm.interop.model_card import RunFigures, render_card

transformers = pytest.importorskip("transformers", reason="an independent reference")
pytestmark = pytest.mark.slow

GREEDY = SamplingSettings(temperature=0.0)
PROMPTS = ["the cat", "", "that rat's hat 12 日本", "their  mat\n"]


@pytest.fixture(autouse=True)
def without_network_and_bars(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    transformers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("weight_scale", [1.0, 8.0])
def test_logits_and_greedy_tokens_are_equal(tmp_path, kind, weight_scale):
    loaded = make_loaded(kind, weight_scale=weight_scale)
    export_huggingface(loaded, tmp_path / "there")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "there", output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(290, (3, 48))
    with torch.no_grad():
        difference = (theirs(tokens).logits - loaded.model(tokens, is_causal=True)).abs().max()
    assert difference < 1e-4
    prompt = [loaded.tokenizer.end_of_text_id, 5, 6, 7]
    generated = theirs.generate(torch.tensor([prompt]), do_sample=False, max_length=48, use_cache=True)[0].tolist()
    row = list(prompt)
    with torch.no_grad():
        while len(row) < len(generated):  # the plain forward pass, token by token, against their cache
            row.append(int(loaded.model(torch.tensor([row]), is_causal=True)[0, -1].argmax()))
    assert generated == row


def test_the_wrong_rotary_layout_would_be_seen(tmp_path):
    loaded = make_loaded("llama")
    export_huggingface(loaded, tmp_path / "there")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "there")
    tokens = torch.randint(290, (2, 48))
    with torch.no_grad():
        for part in (theirs.model.layers[0].self_attn.q_proj, theirs.model.layers[0].self_attn.k_proj):
            part.weight.copy_(part.weight.view(4, 8, 2, 64).transpose(1, 2).reshape(64, 64))
        assert (theirs(tokens).logits - loaded.model(tokens, is_causal=True)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["llama", "grouped qwen3", "shifted"])
def test_a_diffusion_folder_brings_its_own_model(tmp_path, kind):
    loaded = make_loaded(kind, "masked_diffusion", weight_scale=3.0)  # larger ones are sure of several tokens alike
    export_huggingface(loaded, tmp_path / "there")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "there", trust_remote_code=True)
    tokens = torch.randint(290, (3, 48))
    valid = torch.arange(48).expand(3, -1) < torch.tensor([[48], [30], [9]])
    with torch.no_grad():
        assert (theirs(tokens).logits - loaded.model(tokens, is_causal=False)).abs().max() < 1e-4
        padded = theirs(tokens, attention_mask=valid.long()).logits - loaded.model(tokens, is_causal=False, valid=valid)
    assert padded[valid].abs().max() < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "there", trust_remote_code=True)
    for steps, block_length in [(None, 8), (9, 16)]:
        settings = GenerationSettings(total_length=40, sampling=GREEDY, steps=steps, block_length=block_length)
        ids = tokenizer("the cat", return_tensors="pt").input_ids
        made = theirs.generate(ids, total_length=40, steps=steps, block_length=block_length)
        text = tokenizer.decode(made[0], skip_special_tokens=True)
        assert text == Predictor(loaded).generate(["the cat"], settings)[0].text
    sampled = theirs.generate(ids, temperature=1.0)
    assert theirs.config.mask_token_id not in sampled
    with pytest.raises(ValueError, match="fewer than the"):
        theirs.generate(ids, steps=1, block_length=4)


def test_a_diffusion_model_changed_there_comes_back(tmp_path):
    loaded = make_loaded("qwen3", "masked_diffusion")
    export_huggingface(loaded, tmp_path / "there")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "there", trust_remote_code=True)
    with torch.no_grad():
        theirs.lm_head.weight.mul_(2)  # tied: the embedding as well
    theirs.save_pretrained(tmp_path / "tuned")
    write_tokenizer_files(loaded.tokenizer, 48, tmp_path / "tuned")
    back = import_huggingface(tmp_path / "tuned")
    assert (back.objective, back.model.shape) == ("masked_diffusion", loaded.model.shape)
    assert torch.equal(back.model.embedding.weight, 2 * loaded.model.embedding.weight)


def test_the_tokenizer_gives_our_ids_and_the_start_token(tmp_path):
    tokenizer = learn_tokenizer()
    write_tokenizer_files(tokenizer, 48, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*PROMPTS, "a<|mask|>b<|endoftext|>"]:
        assert theirs(text).input_ids == [tokenizer.end_of_text_id, *tokenizer.encode(text)]
        assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.eos_token_id, theirs.mask_token_id) == (tokenizer.end_of_text_id, tokenizer.mask_id)


@pytest.mark.parametrize("objective", ["autoregressive", "masked_diffusion"])
def test_the_code_of_a_model_card_runs(tmp_path, monkeypatch, capsys, objective):
    is_diffusion = objective == "masked_diffusion"
    loaded = make_loaded("qwen3", objective)
    card = render_card(loaded, RunFigures(), is_diffusion, "float32")
    export_huggingface(loaded, tmp_path / "there", card=card)
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setattr("builtins.input", None)  # it must not ask whether to trust
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"__name__": "card"})
    assert capsys.readouterr().out.startswith("Once upon a time")


CONFIGS = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "mistral": {"num_key_value_heads": 1, "sliding_window": None},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16, "rope_theta": 1e6},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_made_there_computes_the_same_here(tmp_path, name, dtype):
    sizes = {
        "vocab_size": 320,  # 30 more than the tokenizer has
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    config = transformers.AutoConfig.for_model(name, **sizes, **CONFIGS[name])
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    write_tokenizer_files(learn_tokenizer(), 64, tmp_path)
    ours = import_huggingface(tmp_path)
    tokens = torch.randint(290, (2, 64))
    with torch.no_grad():
        expected = theirs(tokens).logits[..., :290]
        assert (ours.model(tokens, is_causal=True) - expected).abs().max() < 1e-4


def test_rope_scaling_made_there_is_refused(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    write_tokenizer_files(learn_tokenizer(), 64, tmp_path)
    with pytest.raises(ValueError, match="RoPE scaling of type 'linear'"):
        import_huggingface(tmp_path)
