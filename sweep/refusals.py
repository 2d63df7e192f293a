"""Why classes are refused, in plain words, and what to declare: by the type of a configuration, else by the message."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .trying import Tried


@dataclass(frozen=True)
class Group:
    title: str
    why: str
    declare: str
    types: str = ""  # model types that were looked at, one by one
    pattern: str = ""  # of what was met, for the types that nobody has looked at yet


GROUPS = (
    Group(
        "A convolution over neighbouring tokens",
        """
        It overlaps: each token behind it holds several of those before, and each of those is in several. Such
        convolutions stand before the first layer (positions of speech models, three words side by side in
        MobileBERT), in every layer (conformers, mixing feed-forwards of Segformer and PVTv2, short convolutions
        on keys and values), or between encoder and decoder (the neck of SAM). The refusal is right.
        """,
        """
        Begin anew behind it: `wiring={n: {"reading": "frames", "read": "frames"}}`, n the number of the first
        call behind it, as `heedmap.wiring` counts them. The map is then one of the tokens behind it, and
        nothing is said of those before.
        """,
        """
        wav2vec2 hubert wavlm unispeech unispeech-sat wav2vec2-conformer wav2vec2-bert canary cohere_asr
        parakeet_ctc parakeet_encoder parakeet_rnnt parakeet_tdt nemotron3_5_asr nemotron_asr_streaming
        nemotron_asr_streaming_encoder lasr_ctc lasr_encoder seamless_m4t seamless_m4t_v2 fastspeech2_conformer
        fastspeech2_conformer_with_hifigan pe_audio_encoder pp_ocrv5_mobile_rec pp_ocrv5_server_rec mobilebert
        inkling_mm_model inkling_text inkling2 inkling2_text zaya segformer glpn pvt_v2 levit florence2 swin2sr
        mobilevit lfm3_vl lfm3_vl_vision sam sam_hq sam3 sam3_lite_text canine nystromformer
        """,
        r"moved or mixed|are mixed with others",
    ),
    Group(
        "Linear attention and state spaces between the layers that attend",
        """
        What such a layer carries from token to token is no softmax map, and nothing tells how much of it came
        from where. A map of the softmax layers alone would look whole and not be it. The refusal is right.
        """,
        """
        Begin anew behind the last such layer: `wiring={n: {"reading": "words", "read": "words"}}`, n the number
        of the next call, as `heedmap.wiring` counts them. The map is then one of the tokens there.
        """,
        """
        qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text minicpm_ocr minicpmv4_6 minicpmv4_7
        olmo_hybrid kimi_linear minimax falcon_h1 bamba jamba granitemoehybrid glm5_next glm5_next_text
        """,
        r"multiplies activations|weighs tokens",
    ),
    Group(
        "Attention in another form",
        """
        Softmax weights that are cut into bands (Longformer, LED), weigh kernels of a convolution (ConvBERT),
        blocks (Pegasus-X), two streams at once (ProphetNet) or the few queries that seem active (Informer),
        that lie in more axes than batch and head (Hiera), or are written behind the last layer, as a head
        (MGP-STR, Splinter). No seam knows these forms. Where a head is what reads, the rows that it reads can be
        declared.
        """,
        """
        Begin anew behind it: `wiring={n: {"reading": "frames", "read": "frames"}}`, n the number of the first
        call behind it, as `heedmap.wiring` counts them. The map is then one of the tokens behind it, and
        nothing is said of those before. For a head: `readout=heedmap.Readout(stream, rows=...)`.
        """,
        """
        longformer led convbert pegasus_x prophetnet informer hiera mgp-str splinter longt5
        """,
    ),
    Group(
        "Scores that are the sum of two products",
        """
        Queries are multiplied with keys and, beside it, with the places of tokens that are an input themselves
        (boxes on a page) or made from one. Which product tells what is read is not certain. The weights are
        whole, so this is stricter than it needs to be. Granite's sinks weigh what a call gave by all of its
        scores: that way lies in no map.
        """,
        """
        Declare each such call, or the last: `wiring={n: {"reading": "words", "read": "words"}}` with one name
        for calls that follow one another.
        """,
        """
        bros lilt speecht5 funnel granite_swa granitemoe_swa
        """,
    ),
    Group(
        "Two states added up",
        """
        Two calls read one state side by side, and their results are subtracted (DiffLlama) or added; or several
        copies of every token are mixed by learned numbers (hyper-connections, AltUp); or two towers are added
        token by token (BridgeTower). Neither state holds the other, and the papers' row goes through one.
        """,
        """
        What is wanted of the two, by hand: `wiring={n: {"reading": "joint", "read": "joint"}}` ends the walk
        where they meet.
        """,
        """
        diffllama bridgetower gemma3n_text deepseek_v4
        """,
        r"two states at once|neither holds|two depths side by side",
    ),
    Group(
        "Convolutions before points are read",
        """
        Detectors that read points between tokens. What attends before them is mixed: by a neck of convolutions
        (RT-DETR, D-FINE, DEIMv2, LW-DETR, PP-DocLayout), by coarser grids whose convolutions overlap and
        normalisation over a whole grid (Grounding DINO, Mask2Former). The refusal is right. LW-DETR's learned
        queries are one group of several in a table; that the first rows of it are taken is not followed, which is
        stricter than it needs to be. D-FINE's and DEIMv2's scores are made of the states of all layers: the row that
        speaks is declared too. Behind PP-DocLayoutV2 another model puts the boxes in order, whose first call is named
        in a message, though no score reads it.
        """,
        """
        The picture as it enters the part that reads points, once; calls that read the same tokens are known:
        `wiring={"model.decoder.layers.0.encoder_attn": {"read": "image"}}` for the call of the decoder's first
        layer (`.encoder_attn.attn` in RT-DETR and PP-DocLayout). LW-DETR: besides
        `"model.decoder.layers.0.self_attn": {"reading": "queries", "read": "queries"}`. Grounding DINO: the first
        call of `model.encoder`, by its number, `{"reading": "image"}`. Mask2Former: the first layer of the pixel
        decoder's encoder, `{"reading": "image", "read": "image"}`. `heedmap.load` declares it of RT-DETR,
        PP-DocLayoutV3 and LW-DETR.
        """,
        """
        rt_detr rt_detr_v2 d_fine deimv2 pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4 lw_detr grounding-dino
        mm-grounding-dino mask2former
        """,
    ),
    Group(
        "Points, and windows or a task beside them",
        """
        RF-DETR's backbone puts its class token in every window and takes it from each: where one token is at
        several places relevance is not followed, and this is refused even where the declared walk would end
        behind it, which is stricter than it needs to be. OneFormer's queries first read the finest grid, which
        convolutions made, and are then added up with the task's token.
        """,
        """
        RF-DETR: nothing helps. OneFormer: begin anew at each call that a message names.
        """,
        """
        rf_detr oneformer
        """,
    ),
    Group(
        "One token at several places, or several streams as one",
        """
        A class token stands in every frame or window and is their mean afterwards (TimeSformer, X-CLIP, the
        backbone of RF-DETR); keys are merged from squares of what the queries are (PVT); tokens are grouped by
        a softmax (GroupViT); queries go from frame to frame (VideoMT), or are boxes that every layer writes
        anew (DAB-DETR); two pictures lie side by side as examples and read one another (LightGlue). Where a
        token is put twice it is not told which of the two relevance came by.
        """,
        """
        Begin anew at the call that the message names: `wiring={n: {"reading": "patches", "read": "patches"}}`,
        with two names where it reads other tokens than its own. The map is then one of the tokens there.
        """,
        """
        timesformer xclip rf_detr_dinov2 pvt groupvit videomt dab-detr lightglue
        """,
        r"are spliced from|different layouts|attends over a batch|takes its keys from"
        r"|has \d+ (queries|keys), the stream",
    ),
    Group(
        "Numbers that several tokens hold",
        """
        A time series is cut into windows of lags that overlap, or scaled by a running mean; states, actions and
        returns are interleaved before the first call. The tokens are not laid out one by one in any tensor.
        """,
        """
        Take the tokens as the first call meets them: `wiring={0: {"reading": "steps", "read": "steps"}}`.
        """,
        """
        time_series_transformer timesfm2_5 decision_transformer
        """,
    ),
    Group(
        "Tokens picked by a router, beside the last attention or behind it",
        """
        Experts or adapters pick tokens by an index and put them back. Between two calls the probe sees that each
        comes back to its place. Behind or beside the last call only a target that reads one row is sure; and
        where experts read the tokens as they entered, their order is another. Stricter than it needs to be.
        """,
        """
        The row that is read: `readout=heedmap.Readout("input_ids", rows=-1)`; where the router stands beside
        the calls, the calls that are named too.
        """,
        """
        cohere2_moe jetmoe xmod
        """,
    ),
    Group(
        "The target reads more than rows of the last state",
        """
        Interpolation or upsampling behind the last call, or states of several depths: a head for dense
        pictures.
        """,
        """
        The rows that speak: `readout=heedmap.Readout(stream, rows=...)`.
        """,
        """
        vitpose
        """,
        r"readout=",
    ),
    Group(
        "Relevance where no gradient is",
        """
        The model runs its first rounds under no_grad: what they read has no gradient, and no map.
        """,
        """
        End the walk where the gradient does, as the message says.
        """,
        """
        hrm_text
        """,
        r"no gradient",
    ),
    Group(
        "The number asked for",
        """
        The first field of the output is computed from what comes before any attention.
        """,
        """
        Nothing: ask for another number.
        """,
        "",
        r"does not depend on any attention",
    ),
)
OTHER = Group("Other", "Nobody has looked at these yet.", "What the message says.")


def group(each: Tried) -> Group:
    """By what was met where it is a matter of the number asked for, else by the type, else by the message."""
    met = f"{each.why} {each.then}"
    if re.search(GROUPS[-1].pattern, met):
        return GROUPS[-1]
    known = next((one for one in GROUPS if each.model_type in one.types.split()), None)
    return known or next((one for one in GROUPS if one.pattern and re.search(one.pattern, met)), OTHER)
