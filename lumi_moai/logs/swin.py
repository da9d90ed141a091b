"""Swin Transformer; its time is that of all steps since the line before, so it is left out.

::

    Train: [0/150][64/1250]  eta 4:33:26 lr 0.000014  Time 22.0116 (13.8332)  loss 0.0667 (0.0745)
"""

from .lines import lines

FORMAT = lines(
    "swin",
    "Train: [",
    r"Train: \[(?P<epoch>\d+)/\d+\]\[(?P<step>\d+)/(?P<total>\d+)\]\s+eta [^\r\n]*?\b[Tt]ime {n} \([^)\r\n]*\)\s+"
    r"\w*[Ll]oss (?P<loss>{n}) \({also}",
    also=[r"\b[Mm]em (?P<mib>\d+)MB"],
)
