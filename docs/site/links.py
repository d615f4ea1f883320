"""A hook of `make docs`: links to files of the repository that are no pages become their paths.

On a forge they can be followed; the site has no such files. A link to a file that is not there stays, and ends the
build.
"""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[[^\]]*\]\(((?:\.\./)+[^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    docs = Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_uri).parent

    def path(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if docs in target.parents or not target.exists():
            return link[0]
        return f"`{target.relative_to(docs.parent)}`"

    return LINK.sub(path, markdown)
