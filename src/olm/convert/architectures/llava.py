"""The language models of Llava and Voxtral, of Llama's shape. Their towers are in `pixtral` and `whisper_towers`."""

from __future__ import annotations

from olm.convert.architectures.llama import Llama
from olm.convert.registry import register

__all__ = ["LlavaText"]


@register("LlavaForConditionalGeneration", "VoxtralForConditionalGeneration")
class LlavaText(Llama):
    """Llama's layers beside a tower."""
