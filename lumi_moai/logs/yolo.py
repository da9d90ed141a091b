"""YOLO of Ultralytics, by tqdm and by its own bar; the parts of its loss have no sum, so there is no loss.

::

      1/100  7.21G  1.123  2.123  1.2345  16  640:  10%|#         | 10/100 [00:10<01:30,  5.00it/s]
      1/100  7.21G  1.123  2.123  1.2345  16  640: 10% ━─────────── 10/100 5.0it/s 2.0s<18.0s
"""

from .lines import lines

FORMAT = lines(
    "yolo",
    "G  ",
    r"(?<![^\r\n]) *(?P<epoch>\d+)/\d+ +\d[\d.]*G(?: +(?:\d[\d.e-]*|nan)){2,8}"
    r" +\d+: +\d+% ?(?:\|[^\r\n|]*\||[━╸─]+) (?P<step>\d+)/(?P<total>\d+)"
    r" (?:\[[\d:]+<[^\],]*, +)?(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it)",
    one_line=False,
)
