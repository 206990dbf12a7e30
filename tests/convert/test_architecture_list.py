"""Which architectures are known: all that Ollama converts and llama.cpp runs, and the document that lists them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from olm.convert.hparams import Hparams
from olm.convert.registry import architecture_of, known_architectures
from olm.errors import CheckpointError

ROOT = Path(__file__).parents[2]

# The converters of Ollama at commit fb30760, but for MllamaForConditionalGeneration, which llama.cpp cannot run.
OLLAMAS = """
    LlamaForCausalLM MixtralForCausalLM Llama4ForConditionalGeneration Mistral3ForConditionalGeneration
    Ministral3ForCausalLM GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration
    Gemma3TextModel Gemma3nForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration Phi3ForCausalLM
    Qwen2ForCausalLM Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration
    Qwen3VLMoeForConditionalGeneration Qwen3NextForCausalLM Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForConditionalGeneration Olmo3ForCausalLM BertModel NomicBertModel NomicBertMoEModel CohereForCausalLM
    GptOssForCausalLM DeepseekOCRForCausalLM DeepseekV3ForCausalLM Glm4MoeLiteForCausalLM
    GlmOcrForConditionalGeneration LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM
    Lfm2VlForConditionalGeneration NemotronH_Nano_VL_V2 NemotronH_Nano_Omni_Reasoning_V3 NemotronHForCausalLM
"""
LACKING_THERE = """
    MistralForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM PhiForCausalLM PhiMoEForCausalLM GraniteForCausalLM
    GraniteMoeForCausalLM GraniteMoeHybridForCausalLM Starcoder2ForCausalLM FalconForCausalLM FalconH1ForCausalLM
    ExaoneForCausalLM Exaone4ForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM StableLmForCausalLM OlmoForCausalLM
    Olmo2ForCausalLM InternLM2ForCausalLM InternLM3ForCausalLM MiniCPMForCausalLM MiniCPM3ForCausalLM
    MambaForCausalLM Mamba2ForCausalLM GPT2LMHeadModel GPTNeoXForCausalLM T5EncoderModel ModernBertModel
    JinaBertModel XLMRobertaModel XLMRobertaForSequenceClassification BertForSequenceClassification
"""


@pytest.mark.parametrize("names", [OLLAMAS, LACKING_THERE], ids=["ollamas", "lacking there"])
def test_what_people_have_is_converted(names: str) -> None:
    assert [name for name in names.split() if name not in known_architectures()] == []


def test_an_unknown_one_says_which_are_nearest_and_known() -> None:
    config = Hparams({"architectures": ["Qwen9ForCausalLM"]}, "config.json")

    with pytest.raises(CheckpointError) as caught:
        architecture_of(config)

    message = str(caught.value)
    assert "'Qwen9ForCausalLM'; the nearest known are Qwen3ForCausalLM, " in message
    assert ". Known: apertus, " in message


def test_the_list_is_current() -> None:
    """If not: run scripts/write_architecture_docs.py. Which of them have towers is left to its `--check`."""
    script = runpy.run_path(str(ROOT / "scripts" / "write_architecture_docs.py"))

    written = (ROOT / "docs" / "architectures.md").read_text()
    assert written.replace("*", "") == script["render"]().replace("*", "")
