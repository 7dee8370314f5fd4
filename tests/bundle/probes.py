"""The change that each probe of `tests/fixtures/swift-hosts` made, and the cause that we report for
it.

The changes are in the words of the probes; `""` is the cause of what worked.
"""

import json

SD, XL, SD3 = "sd-guidance-7.5", "xl-base", "sd3-t5"
CN, CN2, REFINER = "cn-1", "cn-2", "xl-base-refiner"
TRANSFORMER = "MultiModalDiffusionTransformer"
RESIDUALS = ("additional_residual_0", "additional_residual_1")


def port(*args, **kwargs):
    return lambda b: b.port(*args, **kwargs)


def add(*args):
    return lambda b: b.add(*args)


def drop(*args):
    return lambda b: b.drop(*args)


def remove(*names):
    return lambda b: [b.models.pop(name) for name in names]


def write(name, content):
    return lambda b: b.files.update({name: content})


def weighs(model, size):
    return lambda bundle: bundle.weights.update({model: size})


def lose(name):
    return lambda b: b.files.pop(name)


def says(**fields):
    return write("manifest.json", json.dumps(fields))


def draw(**settings):
    return says(draw=settings)


def all_of(*changes):
    return lambda b: [change(b) for change in changes]


def flexible(model, *names):
    return lambda b: b.flexible.update((model, name) for name in names)


def copy(old, new):
    return lambda b: b.models.update({new: json.loads(json.dumps(b.models[old]))})


def batch(size, *models):
    return lambda b: b.batch(size, *models)


def text_length(tokens, *, of_unet):
    return all_of(
        port("TextEncoder", "input_ids", shape=[1, tokens]),
        port("TextEncoder", "last_hidden_state", shape=[1, tokens, 768]),
        *([port("Unet", "encoder_hidden_states", shape=[2, 768, 1, tokens])] if of_unet else []),
    )


def merges(change):
    return lambda b: b.files.update({"merges.txt": change(b.files["merges.txt"])})


def vocabulary(change):
    return lambda b: b.json("vocab.json", change)


def t5_tokenizer(change):
    return lambda b: b.json("tokenizer.json", change)


def unloadable(name):
    return lambda b: b.models.update({name: None})


EXTRA = ["additional_residual_2"]
UNET_INPUTS = ("sample", "timestep", "encoder_hidden_states")
TEXT = {
    "input-renamed": (SD, port("TextEncoder", "input_ids", new_name="tokens"), ""),
    "second-input": (SD, add("TextEncoder", "inputs", "attention_mask", [1, 77]),
                     "TextEncoder.mlmodelc: found inputs attention_mask, input_ids"),
    "second-input-optional-first-length-differs": (
        SD, all_of(add("TextEncoder", "inputs", "attention_mask", [1, 5]),
                   lambda b: b.optional.add(("TextEncoder", "attention_mask"))),
        "feeds one input, at random if there are more"),
    "rank1": (SD, port("TextEncoder", "input_ids", shape=[77]), ""),
    "batch2": (SD, port("TextEncoder", "input_ids", shape=[2, 77]),
               "TextEncoder.mlmodelc input_ids: found (2, 77)"),
    "int32": (SD, port("TextEncoder", "input_ids", dtype="Int32"), ""),
    "length-248": (SD, text_length(248, of_unet=True), ""),
    "length-differs-from-unet": (SD, text_length(64, of_unet=False),
                                 "TextEncoder.mlmodelc last_hidden_state: found 64 tokens"),
    "xl-names": (SD, port("TextEncoder", "last_hidden_state", new_name="hidden_embeds"),
                 "TextEncoder.mlmodelc: found outputs hidden_embeds, pooled_outputs, expected "
                 "last_hidden_state"),
    "no-pooled": (SD, drop("TextEncoder", "pooled_outputs"), ""),
    "float16-out": (SD, port("TextEncoder", "last_hidden_state", dtype="Float16"), ""),
    "hidden-rank4": (SD, port("TextEncoder", "last_hidden_state", shape=[1, 768, 1, 77]),
                     "last_hidden_state: found (1, 768, 1, 77)"),
    "width-differs": (SD, port("TextEncoder", "last_hidden_state", shape=[1, 77, 1024]),
                      "last_hidden_state: found 77 tokens, 1024 wide, expected 77, 768 wide"),
}
UNET = {
    "sample-renamed": (SD, port("Unet", "sample", new_name="latent"),
                       "Unet.mlmodelc: found inputs encoder_hidden_states, latent, timestep, "
                       "expected sample among them"),
    "timestep-renamed": (SD, port("Unet", "timestep", new_name="t"), "inputs encoder_hidden_stat"),
    "ehs-renamed": (SD, port("Unet", "encoder_hidden_states", new_name="context"),
                    "inputs context, sample, timestep"),
    "timestep-1": (SD, port("Unet", "timestep", shape=[1]), "1 in Unet.mlmodelc timestep"),
    "timestep-int32": (SD, port("Unet", "timestep", dtype="Int32"), ""),
    "no-timestep": (SD, drop("Unet", "timestep"), "inputs encoder_hidden_states, sample, expected"),
    "extra-input": (SD, add("Unet", "inputs", "timestep_cond", [2, 256]), "timestep_cond"),
    "output-renamed": (SD, port("Unet", "noise_pred", new_name="out"), ""),
    "two-outputs": (SD, add("Unet", "outputs", "aux", [2, 4, 8, 8]), "outputs aux, noise_pred"),
    "float16-out": (SD, port("Unet", "noise_pred", dtype="Float16"), ""),
    "output-batch1": (SD, port("Unet", "noise_pred", shape=[1, 4, 8, 8]),
                      "noise_pred: found (1, 4, 8, 8), expected (2, 4, 8, 8)"),
    "output-rank3": (SD, port("Unet", "noise_pred", shape=[2, 4, 64]), "found (2, 4, 64)"),
    "9-channels": (SD, port("Unet", "sample", shape=[2, 9, 8, 8]),
                   "channels of a mask and its picture are fed noise"),
    "batch2-guidance-half": (SD, draw(guidance=0.5), "a batch of one for guidance=0.5"),
    "batch1-two-pictures": (
        SD, all_of(batch(1, "Unet"), draw(guidance=5, count=2)), "a batch of one for count=2"),
    "batch1-sample-2-others": (SD, port("Unet", "sample", shape=[1, 4, 8, 8]),
                               "batches of 1 in Unet.mlmodelc sample, 2 in"),
    "batch4": (SD, batch(4, "Unet"), "batches of 4 in Unet.mlmodelc sample"),
    "flexible": (SD, flexible("Unet", *UNET_INPUTS), ""),
    "flexible-default-batch1-guidance-half": (
        SD, all_of(batch(1, "Unet"), flexible("Unet", *UNET_INPUTS)), ""),
}
CHUNKS = {
    "beside-full": ("sd-chunks", copy("UnetChunk1", "Unet"), "Unet.mlmodelc: found also UnetChun"),
    "only-first-beside-full": ("sd-chunks", all_of(
        copy("UnetChunk1", "Unet"), remove("UnetChunk2")),
        "UnetChunk2.mlmodelc: found only the other chunk"),
    "only-first": ("sd-chunks", remove("UnetChunk2"), "UnetChunk2.mlmodelc: found only the other"),
    "first-without-sample": ("sd-chunks", all_of(
        drop("UnetChunk1", "sample"), add("UnetChunk2", "inputs", "sample", [2, 4, 8, 8])),
        "UnetChunk1.mlmodelc: found inputs encoder_hidden_states, timestep, expected sample"),
    "boundary-name-differs": ("sd-chunks", port("UnetChunk2", "hidden_1_cast", new_name="hidden_1"),
                              "UnetChunk2.mlmodelc: found inputs hidden_1, skip_cast"),
    "clash": ("sd-chunks", all_of(
        add("UnetChunk1", "outputs", "sample", [2, 4, 8, 8]),
        add("UnetChunk2", "inputs", "sample", [2, 4, 8, 8])),
        "UnetChunk1.mlmodelc: found outputs sample, expected other names"),
    "boundary-float16": ("sd-chunks", all_of(
        port("UnetChunk1", "skip_cast", dtype="Float16"),
        port("UnetChunk2", "skip_cast", dtype="Float16")), ""),
    "extra-boundary": ("sd-chunks", add("UnetChunk1", "outputs", "more", [2, 4, 8, 8]), ""),
}
DECODER = {
    "renamed": (SD, all_of(port("VAEDecoder", "z", new_name="latent"),
                           port("VAEDecoder", "image", new_name="sample")), ""),
    "two-inputs": (SD, add("VAEDecoder", "inputs", "shift", [1]), "VAEDecoder.mlmodelc: found in"),
    "two-outputs": (SD, add("VAEDecoder", "outputs", "aux", [1, 3, 64, 64]), "outputs aux, image"),
    "float16-out": (SD, port("VAEDecoder", "image", dtype="Float16"), ""),
    "4-channels": (SD, port("VAEDecoder", "image", shape=[1, 4, 64, 64]), "found (1, 4, 64, 64)"),
    "rank3": (SD, port("VAEDecoder", "image", shape=[3, 64, 64]), "image: found (3, 64, 64)"),
    "nhwc": (SD, port("VAEDecoder", "image", shape=[1, 64, 64, 3]), "found (1, 64, 64, 3)"),
    "other-size": (SD, port("VAEDecoder", "z", shape=[1, 4, 16, 16]),
                   "latents of 16×16 in 4 channels, expected 8×8 in 4 channels"),
    "missing": (SD, remove("VAEDecoder"), "VAEDecoder.mlmodelc: found nothing"),
}
ENCODER = {
    "renamed": (SD, all_of(port("VAEEncoder", "x", new_name="image"),
                           port("VAEEncoder", "latent", new_name="moments")), ""),
    "mean-only": (SD, port("VAEEncoder", "latent", shape=[1, 4, 8, 8]), "latent: found (1, 4, 8"),
    "32-channels": (SD, all_of(
        port("VAEEncoder", "latent", shape=[1, 32, 8, 8]),
        port("VAEDecoder", "z", shape=[1, 16, 8, 8]),
        port("Unet", "sample", shape=[2, 16, 8, 8]),
        port("Unet", "noise_pred", shape=[2, 16, 8, 8])), "latent: found (1, 32, 8, 8)"),
    "two-outputs": (SD, all_of(port("VAEEncoder", "latent", shape=[1, 4, 8, 8]),
                               add("VAEEncoder", "outputs", "logvar", [1, 4, 8, 8])),
                    "VAEEncoder.mlmodelc: found outputs latent, logvar"),
    "float16-out": (SD, port("VAEEncoder", "latent", dtype="Float16"), ""),
    "flexible": (SD, flexible("VAEEncoder", "x"), "VAEEncoder.mlmodelc x: found a flexible shape"),
}
NETA, NETB = "controlnet/NetA", "controlnet/NetB"
CONTROLNETS = {
    "cond-renamed": (CN, port(NETA, "controlnet_cond", new_name="cond"),
                     "NetA.mlmodelc: found inputs cond, encoder_hidden_states"),
    "float16-out": (CN, all_of(*(port(NETA, name, dtype="Float16") for name in RESIDUALS)),
                    "NetA.mlmodelc additional_residual_0: found fp16, expected fp32"),
    "batch1": (CN, batch(1, "Unet", "ControlledUnet", NETA), "controlnet_cond: found (1, 3, 64, 6"),
    "batch1-guidance-half": (CN, all_of(
        batch(1, "Unet", "ControlledUnet", NETA), draw(guidance=0.5)),
        "controlnet_cond: found (1, 3, 64, 64), expected (2, 3, H, W)"),
    "batch2-guidance-half": (CN, draw(guidance=0.5), "expected a batch of one for guidance=0.5"),
    "fewer-residuals": (CN, drop(NETA, RESIDUALS[1]),
                        "NetA.mlmodelc: found outputs additional_residual_0, expected"),
    "residual-shape": (CN, port(NETA, RESIDUALS[1], shape=[2, 640, 8, 8]),
                       "additional_residual_1: found (2, 640, 8, 8), expected (2, 640, 4, 4)"),
    "second-net-more-names": (CN2, add(NETB, "outputs", "additional_residual_2", [2, 640, 4, 4]),
                              "NetB.mlmodelc: found outputs additional_residual_0, additional_res"),
    "second-net-bigger": (CN2, port(NETB, RESIDUALS[0], shape=[2, 320, 16, 16]),
                          "NetB.mlmodelc additional_residual_0: found (2, 320, 16, 16)"),
    "no-controlled-unet": (CN, remove("ControlledUnet"), "ControlledUnet.mlmodelc: found nothing"),
    "cond-flexible": (CN, port(NETA, "controlnet_cond", shape=[]), ""),
    "chunk-residuals-in-second": ("cn-chunks", drop("ControlledUnetChunk1", *RESIDUALS), ""),
    "unet-batch1-net-batch2": (CN, batch(1, "ControlledUnet"),
                               "batches of 1 in ControlledUnet.mlmodelc sample"),
    "two-nets-fine": (CN2, all_of(), ""),
    "net-in-subfolder": (CN, all_of(copy(NETA, "controlnet/sub/NetA"), remove(NETA)), ""),
}
SAFETY = {
    "768": ("safety-safe", port("SafetyChecker", "images", shape=[1, 768, 768, 3]),
            "images: found (1, 768, 768, 3), expected (1, 512, 512, 3)"),
    "no-adjustment-input": ("safety-safe", drop("SafetyChecker", "adjustment"), ""),
    "clip-renamed": ("safety-safe", port("SafetyChecker", "clip_input", new_name="pixels"),
                     "inputs adjustment, images, pixels, expected"),
    "clip-336": ("safety-safe", port("SafetyChecker", "clip_input", shape=[1, 3, 336, 336]), ""),
    "clip-nonsquare": ("safety-safe", port("SafetyChecker", "clip_input", shape=[1, 3, 224, 112]),
                       "clip_input: found (1, 3, 224, 112), expected a square"),
    "only-has-nsfw": ("safety-safe", drop("SafetyChecker", "filtered_images", "concept_scores"),
                      ""),
    "broken": ("safety-safe", unloadable("SafetyChecker"),
               "SafetyChecker.mlmodelc: found coremldata.bin: no such file"),
}
XL_UNET = {
    "no-time-ids": (XL, drop("Unet", "time_ids"), "expected time_ids among them"),
    "time-ids-flat-12": (XL, port("Unet", "time_ids", shape=[12]), ""),
    "time-ids-1x12": (XL, port("Unet", "time_ids", shape=[1, 12]), "time_ids: found (1, 12)"),
    "time-ids-flat-6": (XL, port("Unet", "time_ids", shape=[6]), "time_ids: found (6,)"),
    "time-ids-2x5-width-2048": (XL, port("Unet", "time_ids", shape=[2, 5]),
                                "TextEncoder2.mlmodelc hidden_embeds: found 77 tokens, 1280 wide, "
                                "expected 77, 2048 wide"),
    "batch1": (XL, batch(1, "Unet"), "doubles the batch at every guidance"),
    "batch1-guidance-0": (XL, all_of(batch(1, "Unet"), draw(guidance=0)),
                          "doubles the batch at every guidance"),
    "timestep-cond": (XL, add("Unet", "inputs", "timestep_cond", [2, 256]), "timestep_cond"),
    "text-embeds-768": (XL, port("Unet", "text_embeds", shape=[2, 768]),
                        "Unet.mlmodelc text_embeds: found (2, 768), expected (1, 1280)"),
    "sd-unet": (XL, all_of(drop("Unet", "time_ids", "text_embeds"),
                           port("Unet", "encoder_hidden_states", shape=[2, 768, 1, 77])),
                "expected time_ids among them"),
    "chunk1-without-time-ids": ("xl-base-refiner-chunks", all_of(
        drop("UnetChunk1", "time_ids"), add("UnetChunk2", "inputs", "time_ids", [2, 6])),
        "UnetChunk1.mlmodelc: found inputs encoder_hidden_states, sample, text_embeds, timestep, "
        "expected time_ids among them"),
    "chunk2-only-embeds": ("xl-base-refiner-chunks", drop("UnetChunk1", "text_embeds"), ""),
    "text-encoder-one-more-input": (XL, add("TextEncoder2", "inputs", "eos_index", [1]),
                                    "TextEncoder2.mlmodelc: found inputs eos_index, input_ids"),
}
XL_TEXT = {
    "te1/sd-names": (XL, port("TextEncoder", "hidden_embeds", new_name="last_hidden_state"),
                     "outputs last_hidden_state, pooled_outputs, expected hidden_embeds"),
    "te2/no-pooled": (XL, drop("TextEncoder2", "pooled_outputs"), "expected pooled_outputs"),
    "te2/text-embeds-name": (XL, port("TextEncoder2", "pooled_outputs", new_name="text_embeds"),
                             "outputs hidden_embeds, text_embeds, expected pooled_outputs"),
    "te2/missing": (XL, remove("TextEncoder2"), "TextEncoder2.mlmodelc: found nothing"),
    "te1/missing": (XL, remove("TextEncoder"), "TextEncoder.mlmodelc: found nothing"),
    "te1/broken": (XL, unloadable("TextEncoder"), "TextEncoder.mlmodelc: found coremldata.bin"),
    "te2/other-length": (XL, all_of(
        port("TextEncoder2", "input_ids", shape=[1, 64]),
        port("TextEncoder2", "hidden_embeds", shape=[1, 64, 1280])),
        "TextEncoder2.mlmodelc hidden_embeds: found 64 tokens, expected 77 as TextEncoder"),
    "te2/float16-out": (XL, all_of(*(port("TextEncoder2", name, dtype="Float16")
                                     for name in ("hidden_embeds", "pooled_outputs"))), ""),
    "te2/pooled-rank1": (XL, port("TextEncoder2", "pooled_outputs", shape=[1280]),
                         "pooled_outputs: found (1280,), expected (1, width)"),
    "encoder/mean-only": (XL, port("VAEEncoder", "latent", shape=[1, 4, 8, 8]),
                          "latent: found (1, 4, 8, 8)"),
    "decoder/missing": (XL, remove("VAEDecoder"), "VAEDecoder.mlmodelc: found nothing"),
    "safety-in-folder": (XL, lambda b: b.models.update(
        SafetyChecker=b.models["VAEDecoder"]), "SafetyChecker.mlmodelc: found the model, expected"),
    "controlnet-in-folder": (XL, all_of(copy("Unet", "ControlledUnet"), copy("Unet", NETA)),
                             "controlnet/NetA.mlmodelc: found the model, expected nothing"),
}
XL_REFINER = {
    "refiner/no-time-ids": (REFINER, drop("UnetRefiner", "time_ids"),
                            "UnetRefiner.mlmodelc: found inputs encoder_hidden_states, sample, "
                            "text_embeds, timestep"),
    "refiner/2x6": (REFINER, port("UnetRefiner", "time_ids", shape=[2, 6]),
                    "UnetRefiner.mlmodelc time_ids: found (2, 6), expected (2, 5)"),
    "refiner/other-size": (REFINER, all_of(
        port("UnetRefiner", "sample", shape=[2, 4, 16, 16]),
        port("UnetRefiner", "noise_pred", shape=[2, 4, 16, 16])),
        "UnetRefiner.mlmodelc: found latents of 16×16"),
    "refiner/base-unet-again": (REFINER, copy("Unet", "UnetRefiner"),
                                "expected 77, 2048 wide for UnetRefiner.mlmodelc"),
    "refiner/unopenable": (REFINER, unloadable("UnetRefiner"), "UnetRefiner.mlmodelc: found core"),
    "turbo/1-step-guidance-0-refiner": (REFINER, draw(steps=1, guidance=0),
                                        "draw.steps: found 1, expected at least 2 beside"),
}
MMDIT = {
    "latent-renamed": (SD3, port(TRANSFORMER, "latent_image_embeddings", new_name="sample"),
                       "inputs pooled_text_embeddings, sample, timestep, token_level"),
    "pooled-rank2": (SD3, port(TRANSFORMER, "pooled_text_embeddings", shape=[2, 2048]),
                     "pooled_text_embeddings: found (2, 2048), expected (2, width, 1, 1)"),
    "tokens-77": (SD3, port(TRANSFORMER, "token_level_text_embeddings", shape=[2, 4096, 1, 77]),
                  "token_level_text_embeddings: found (2, 4096, 1, 77)"),
    "tokens-333": (SD3, port(TRANSFORMER, "token_level_text_embeddings", shape=[2, 4096, 1, 333]),
                   "token_level_text_embeddings: found (2, 4096, 1, 333)"),
    "two-outputs": (SD3, add(TRANSFORMER, "outputs", "aux", [2, 16, 8, 8]), "outputs aux, deno"),
    "chunks": (SD3, all_of(copy(TRANSFORMER, f"{TRANSFORMER}Chunk1"),
                           copy(TRANSFORMER, f"{TRANSFORMER}Chunk2"), remove(TRANSFORMER)),
               f"{TRANSFORMER}.mlmodelc: found {TRANSFORMER}Chunk1.mlmodelc"),
}
T5 = {
    "te1/no-pooled": (SD3, drop("TextEncoder", "pooled_outputs"), "expected pooled_outputs"),
    "te1/missing": (SD3, remove("TextEncoder"), "TextEncoder.mlmodelc: found nothing"),
    "t5/length-64": (SD3, all_of(
        *(port("TextEncoderT5", name, shape=[1, 64]) for name in ("input_ids", "attention_mask")),
        port("TextEncoderT5", "encoder_hidden_states", shape=[1, 4096, 1, 64])),
        "encoder_hidden_states: found 64 tokens, expected at least 77"),
    "t5/rank3-out": (SD3, port("TextEncoderT5", "encoder_hidden_states", shape=[1, 128, 4096]),
                     "encoder_hidden_states: found (1, 128, 4096)"),
    "t5/no-mask-input": (SD3, drop("TextEncoderT5", "attention_mask"),
                         "TextEncoderT5.mlmodelc: found inputs input_ids, expected attention_mask"),
    "t5/mask-other-shape": (SD3, port("TextEncoderT5", "attention_mask", shape=[1, 1, 1, 128]),
                            "attention_mask: found (1, 1, 1, 128), expected (1, tokens)"),
    "t5/output-renamed": (SD3, port("TextEncoderT5", "encoder_hidden_states",
                                    new_name="last_hidden_state"),
                          "outputs last_hidden_state, expected encoder_hidden_states"),
    "t5/no-tokenizer-config": (SD3, lose("tokenizer_config.json"),
                               "tokenizer_config.json: found no file"),
    "t5/tokenizer-not-json": (SD3, write("tokenizer.json", "<html>"), "tokenizer.json: found not"),
}
TOKENIZER = {
    "vocab-missing": (SD, lose("vocab.json"), "vocab.json: found no such file"),
    "vocab-html": (SD, write("vocab.json", "<html>"), "vocab.json: found not JSON"),
    "vocab-nested": (SD, write("vocab.json", '{"model": {"vocab": {}}}'),
                     "vocab.json: found \"{'vocab': {}}\" for 'model'"),
    "merges-bad-line": (SD, merges(lambda text: text.replace("fo x", "fo x y")),
                        "merges.txt:3: found 'fo x y</w>'"),
    "merges-empty": (SD, write("merges.txt", ""), "merges.txt: found no rule"),
    "merges-crlf": (SD, merges(lambda text: text.replace("\n", "\r\n")),
                    "merges.txt:1: found a carriage return"),
    "no-special-tokens": (SD, vocabulary(lambda words: [
        words.pop(word) for word in ("<|startoftext|>", "<|endoftext|>")]),
        "vocab.json: found no <|startoftext|>"),
    "t5-only-no-clip-files": (SD3, lose("merges.txt"), "merges.txt: found no file"),
    "merges-no-last-newline": (SD, merges(str.rstrip), "merges.txt: found no line feed at its end"),
    "merges-last-newline": (SD, all_of(), ""),
    "merges-version-line-missing": (SD, merges(lambda text: text.partition("\n")[2]), ""),
}
MULTILINGUAL = {
    "no-projection": ("ml-latin", remove("MultilingualTextEncoderProjection"),
                      "TextEncoder.mlmodelc: found nothing"),
    "rank3-out": ("ml-latin", port("MultilingualTextEncoderProjection", "projection",
                                   shape=[1, 256, 768]),
                  "projection: found (1, 256, 768), expected (1, width, 1, 256)"),
    "unet-77": ("ml-latin", port("Unet", "encoder_hidden_states", shape=[2, 768, 1, 77]),
                "projection: found 256 tokens, 768 wide, expected 77, 768 wide"),
}
ONE_STEP = {
    "sd/pndm-1-step": (SD, draw(steps=1, scheduler="pndm"), "draw.steps: found 1"),
}
CHANGES = {
    **{f"{group}{name}": case for group, cases in {
        "sd/text/": TEXT, "sd/unet/": UNET, "sd/chunks/": CHUNKS, "sd/decoder/": DECODER,
        "sd/encoder/": ENCODER, "cn/": CONTROLNETS, "safety/": SAFETY, "xl/unet/": XL_UNET,
        "xl/": XL_TEXT | XL_REFINER, "sd3/mmdit/": MMDIT, "sd3/": T5, "tok/": TOKENIZER,
        "ml/": MULTILINGUAL, "": ONE_STEP,
    }.items() for name, case in cases.items()},
}
OF_THE_CALLER = {
    "sd/encoder/missing": "a starting image for a bundle without an encoder: a warning",
    "sd/encoder/other-image-size": "a starting image of another size",
    "cn/cond-other-size": "a picture of another size",
    "cn/two-nets-one-cond": "a picture less than ControlNets",
    "cn/cond-without-net": "a picture without a ControlNet",
    "cn/net-missing": "the name of a ControlNet that is not there",
    "cn/name-with-extension": "the name of a ControlNet with a suffix",
    "xl/in-sd-pipeline": "another pipeline than the bundle's",
    "sd3/unet-instead": "another pipeline than the bundle's",
    "sd3/img2img": "a starting image for SD 3: a warning",
    "sd3/scale-forgotten": "the scale factor of another family",
    "sd/flow-img2img": "the scheduler of SD 3",
    "sd/count-0": "no picture",
    "sd/strength-0": "a strength of 0",
    "xl/refiner/start-2": "a refiner that starts after the end",
}
UNSEEN = {
    "sd/decoder/0-to-1": "the range of a picture",
    "safety/score-0.3": "the value of a verdict",
}
