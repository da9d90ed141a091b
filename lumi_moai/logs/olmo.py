"""OLMo and OLMo-core: a header for each step, its values on the lines below; rates are those of one device.

::

    INFO     [olmo.train:816, rank=0] [step=2/739328]
        train/CrossEntropyLoss=10.73
        throughput/device/tokens_per_second=45,538
"""

from .lines import lines

_BELOW = r"(?=(?:[^\S\r\n]++[^\r\n=]+=[^\r\n]*\r?\n)*?[^\S\r\n]+%s=%s)?"

FORMAT = lines(
    "olmo",
    "[step=",
    r"\[step=(?P<step>\d+)/(?P<total>\d+)[^\]\r\n]*\][^\r\n]*\r?\n"
    + _BELOW % ("train/(?:CrossEntropy|CE )[Ll]oss", r"(?P<loss>{n})")
    + _BELOW % ("throughput/device/(?:tokens_per_second|TPS)", r"(?P<tokens>{n})")
    + _BELOW % ("throughput/device/MFU", r"(?P<mfu_percent>{n})")
    + _BELOW % (r"(?:system|gpu_memory)/GPU active mem \(GiB\)", r"(?P<gib>{n})"),
    scope="per_device",
    one_line=False,
)
