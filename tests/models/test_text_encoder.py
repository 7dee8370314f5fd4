"""The text encoder sees a prompt padded as its checkpoint was trained, in every host."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.normalized import encode, read_architecture
from sdbuild.families import FAMILIES
from sdbuild.models.network import Architecture, unwrapped
from sdbuild.models.text_encoder import TextEncoder, build, end_token, samples
from tests.tiny_checkpoints import STYLES, TOKENIZER

END, BANG = 49407, 0
PROMPTS = ["", "a red fox, on a hill", "fox " * 75, "fox " * 100]


def encoder(style):
    torch.manual_seed(0)
    return CLIPTextModel(CLIPTextConfig(**STYLES[style]["text_encoder"])).eval()


def padded(prompt, pad_token):
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, pad_token=pad_token)
    return tokenizer(prompt, padding="max_length", max_length=77, truncation=True,
                     return_tensors="pt").input_ids


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("by_host", ["<|endoftext|>", "!"])
def test_embeddings_are_those_of_the_checkpoints_own_tokenizer(prompt, by_host):
    net = encoder("sd2")
    ours = TextEncoder(net, {"end_token_id": END, "pad_token_id": BANG})

    with torch.inference_mode():
        wanted = net(padded(prompt, "!"))
        found, pooled = ours(padded(prompt, by_host).float())

    assert torch.equal(found, wanted.last_hidden_state)
    assert torch.equal(pooled, wanted.pooler_output)


def test_an_exclamation_mark_in_a_prompt_is_a_word_and_no_padding():
    """As OpenCLIP trained them; transformers takes any `!` for the pad token if `!` is that."""
    ours = TextEncoder(encoder("sd2"), {"end_token_id": END, "pad_token_id": BANG})

    found = ours.tokens(padded("hill!", "<|endoftext|>").float())[0].tolist()

    assert found == [49406, 2682, 256, END, *[BANG] * 73]


def test_without_padding_of_its_own_tokens_stay_as_they_come():
    tokens = padded("a fox", "!").float()

    assert torch.equal(TextEncoder(encoder("sd1"), None).tokens(tokens), tokens.int())


def test_a_pad_token_that_the_network_does_not_know_is_refused():
    architecture = Architecture(
        class_name="CLIPTextModel", config=STYLES["sd2"]["text_encoder"],
        padding={"end_token_id": END, "pad_token_id": 49408},
    )

    with pytest.raises(SourceError, match=r"knows 49408 tokens, .* with the numbers 49407, 49408"):
        build(FAMILIES["sd"].component("text_encoder"), architecture)


def test_a_prompt_without_an_end_stays_as_it_comes():
    tokens = torch.arange(77.)[None]
    ours = TextEncoder(encoder("sd2"), {"end_token_id": END, "pad_token_id": BANG})

    assert torch.equal(ours.tokens(tokens), tokens.int())


@pytest.mark.parametrize(("style", "part"), [
    (style, part) for style in STYLES for part in STYLES[style]
    if part in ("text_encoder", "text_encoder_2")])
def test_samples_are_prompts_whose_end_old_configs_do_not_name(style, part):
    """They say 2; the end token is the last of the vocabulary."""
    config = STYLES[style][part]
    found = list(samples(None, config, {"S": 77}, torch.Generator().manual_seed(0)))

    assert end_token(config) == END
    assert [int((tokens == END).int().argmax()) for (tokens,) in found] == [4, 21, 76]


def test_an_end_token_that_a_config_names_is_the_one():
    assert end_token({"eos_token_id": 5, "vocab_size": 49408}) == 5


def test_an_architecture_without_padding_is_that_of_old_ones():
    assert Architecture(class_name="CLIPTextModel", config={}).padding is None


def architecture_file(folder, style="sd1"):
    config = STYLES[style]["text_encoder"]
    path = folder / "architecture.json"
    path.write_bytes(encode({"class": "CLIPTextModel", "config": config}))
    return path, config["num_hidden_layers"]


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_gives_an_earlier_layer_normalized(tmp_path, skip):
    """As diffusers' pipelines and the web UI have it: the last layer's normalization, of another
    layer's states."""
    net, (path, _) = encoder("sd1"), architecture_file(tmp_path)
    ours = build(FAMILIES["sd"].component("text_encoder"),
                 read_architecture(path, {"clip_skip": skip})).eval()
    ours.net.load_state_dict(net.state_dict(), strict=False)
    tokens = padded("a red fox", "<|endoftext|>")

    with torch.inference_mode():
        states = net(tokens, output_hidden_states=True).hidden_states
        wanted = unwrapped(net, "text_model").final_layer_norm(states[-skip])
        found, _ = ours(tokens.float())

    assert torch.allclose(found, wanted, atol=1e-6)


def test_more_layers_than_there_are_cannot_be_left_out(tmp_path):
    path, layers = architecture_file(tmp_path)

    with pytest.raises(SourceError, match=f"the text encoder has {layers} layers"):
        read_architecture(path, {"clip_skip": layers + 1})


def test_other_networks_have_no_layers_to_leave_out(tmp_path):
    path = tmp_path / "architecture.json"
    path.write_bytes(encode({"class": "UNet2DConditionModel", "config": {"layers_per_block": 2}}))

    assert read_architecture(path, {"clip_skip": 2}).config == {"layers_per_block": 2}
