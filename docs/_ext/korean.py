"""Search that finds Korean: words in Hangul are indexed, and looked up, by pairs of syllables."""

from __future__ import annotations

import re
from typing import Any

from sphinx.search.en import SearchEnglish

HANGUL = r"가-힣"
RUN = re.compile(rf"[{HANGUL}]+(?: [{HANGUL}]+)*|[^\W{HANGUL}]+")


def pairs(text: str) -> list[str]:
    """'잠재 변수' → ['잠재', '재변', '변수']: across a space too, so that 잠재변수 finds 잠재 변수."""
    run = text.replace(" ", "")
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


class SearchKorean(SearchEnglish):
    """English words by their stems; Korean ones by pairs of syllables, which particles after a noun leave alone."""

    lang = "ko-en"
    language_name = "Korean and English"
    js_splitter_code = f"""
function splitQuery(query) {{
  const found = [];
  for (const [word] of query.matchAll(/[{HANGUL}]+|(?:(?![{HANGUL}])[\\p{{L}}\\p{{N}}_])+/gu)) {{
    if (!/[{HANGUL}]/.test(word) || word.length === 1) found.push(word);
    else for (let i = 0; i + 1 < word.length; i++) found.push(word.slice(i, i + 2));
  }}
  return found;
}}
"""

    def split(self, input: str) -> list[str]:
        words = RUN.findall(input)
        return [part for word in words for part in (pairs(word) if re.match(rf"[{HANGUL}]", word) else [word])]


def korean_page(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """A page below ko/ says that it is in Korean: for browsers, readers aloud and translators."""
    if page.startswith("ko/"):
        context["language"] = "ko"


def setup(app: Any) -> dict[str, bool]:
    app.add_search_language(SearchKorean)
    app.connect("html-page-context", korean_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
