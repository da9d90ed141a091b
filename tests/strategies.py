"""Hypothesis generators that several tests share."""

from hypothesis import strategies as st

words = st.text(min_size=1, max_size=40)
"""Any text at all."""

printable = st.text(
    alphabet=st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=40
)
"""What may stand in a script: no control characters, no line separators."""

nasty = st.sampled_from(
    ["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "\\", "\\\\", "'", '"', "$HOME", "~", "*",
     "#", "a b", "-n", "--", "!!", "${IFS}", "&& touch pwned", "| touch pwned", ">pwned", "%j", "é", "日本"]
)  # fmt: skip
"""What people and attackers write."""
