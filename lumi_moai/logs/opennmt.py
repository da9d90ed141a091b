"""OpenNMT-py; its loss is the cross-entropy of a word, its rate that of the words of the target.

::

    Step 50/100000; acc: 12.1; ppl: 1234.5; xent: 7.1; lr: 0.0001; sents: 12345; bsz: 3012/3512/123;
        12345/14321 tok/s; 61 sec;
"""

from .lines import lines

FORMAT = lines(
    "opennmt",
    "; xent: ",
    r"\bStep +(?P<step>\d+)(?:/ *(?P<total>\d+))?; acc: [^\r\n]*?; xent: +(?P<loss>{n});"
    r"[^\r\n]*?/ *(?P<tokens>{d}) tok/s;",
)
