"""HTML and SVG as a tree, so that no text from a record can become markup: all of it is escaped when it is written."""

import re
from typing import Final
from xml.etree.ElementTree import Element, tostring

Child = Element | str

# control characters, which XML does not have, and those that turn the direction of the text after them
_HARMFUL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def clean(text: str) -> str:
    """`text` with a replacement character for each that has no business on a page."""
    return _HARMFUL.sub("\ufffd", text)


def node(tag: str, *children: Child, **attributes: str | float) -> Element:
    """An element. In the names of attributes `_` stands for `-`, one at the end (`class_`) is dropped, and so
    is an attribute that says nothing."""
    words = {name.rstrip("_").replace("_", "-"): _word(value) for name, value in attributes.items() if value != ""}
    element = Element(tag, words)
    for child in children:
        append(element, child)
    return element


def append(element: Element, child: Child) -> None:
    """Add a child at the end; a string becomes text."""
    if isinstance(child, Element):
        element.append(child)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + clean(child)
    else:
        element.text = (element.text or "") + clean(child)


def written(element: Element) -> str:
    """The text of a tree, which is XML as well as HTML if no element of it is one that HTML never closes."""
    return tostring(element, encoding="unicode", short_empty_elements=False)


def _word(value: str | float) -> str:
    return clean(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
