"""A page as a browser reads it, and the figures that it shows."""

import html5lib

_HTML = "{http://www.w3.org/1999/xhtml}"


def parsed(text):
    """The tree of a page; a page that is no valid HTML is an error."""
    return html5lib.HTMLParser(strict=True).parse(text)


def each(tree, name, kind=None):
    """The elements of a name, of a class if there is one."""
    return [found for found in tree.iter(_HTML + name)
            if kind is None or kind in found.get("class", "").split()]


def text(element):
    return " ".join("".join(element.itertext()).split())


def captions(tree):
    """Returns the captions of the images, sheet by sheet."""
    return [[text(each(figure, "figcaption")[0]) for figure in each(sheet, "figure")]
            for sheet in each(tree, "div", "sheet")]


def rows(table):
    """The cells of a table's body; those that reach over several rows are in each."""
    body, left, found = each(table, "tbody")[0], [], []
    for row in each(body, "tr"):
        cells = [cell for cell in row if cell.tag in (_HTML + "td", _HTML + "th")]
        own = [text(cell) for cell in cells]
        carried = [said for said, _ in left]
        left = [(said, count - 1) for said, count in left if count > 1]
        left += [(text(cell), int(cell.get("rowspan")) - 1) for cell in cells
                 if int(cell.get("rowspan", 1)) > 1]
        found.append(carried + own)
    return found
