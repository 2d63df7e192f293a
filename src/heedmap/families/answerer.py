"""BLIP answers questions in words of its own, but its forward pass keeps their logits to itself: they are let out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Answerer(nn.Module):
    """The parts of a BlipForQuestionAnswering, joined as its `generate` joins them, up to the next word's logits."""

    def __init__(self, blip: Any) -> None:
        super().__init__()
        self.vision_model = blip.vision_model
        self.text_encoder, self.text_decoder = blip.text_encoder, blip.text_decoder
        self.config = blip.config
        self.ends = {"eos_token_id": self.config.text_config.sep_token_id}
        self.generation_config = SimpleNamespace(decoder_start_token_id=blip.decoder_start_token_id, **self.ends)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> dict[str, Tensor]:
        answer = self.text_decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=self._understood(pixel_values, input_ids, attention_mask),
            encoder_attention_mask=attention_mask,
            use_cache=False,
        )
        return {"logits": answer.logits}

    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        **how: Any,
    ) -> Tensor:
        """The answer in tokens, those that are there first."""
        return self.text_decoder.generate(
            input_ids=decoder_input_ids,
            encoder_hidden_states=self._understood(pixel_values, input_ids, attention_mask),
            encoder_attention_mask=attention_mask,
            pad_token_id=self.config.text_config.pad_token_id,
            **self.ends,
            **how,
        )

    def _understood(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The question, once it has read the picture."""
        seen = self.vision_model(pixel_values=pixel_values)[0]
        all_of_it = torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device)
        return self.text_encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=all_of_it,
        )[0]
