"""DMR++ documents of HDF5 files, made from what h5py says of their chunks."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import h5py
import numpy as np

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Dataset xmlns="http://xml.opendap.org/ns/DAP/4.0#" '
    'xmlns:dmrpp="http://xml.opendap.org/dap/dmrpp/1.0.0#" dapVersion="4.0" dmrVersion="1.0" '
)
TYPES = {
    **{f"i{n}": f"Int{8 * n}" for n in (1, 2, 4, 8)},
    **{f"u{n}": f"UInt{8 * n}" for n in (1, 2, 4, 8)},
    "f4": "Float32",
    "f8": "Float64",
}
PADDINGS = {h5py.h5t.STR_NULLTERM: "null_term", h5py.h5t.STR_NULLPAD: "null_pad", h5py.h5t.STR_SPACEPAD: "space_pad"}
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 307: "bzip2", 32015: "zstd"}


def document(body: str, name: str = "a.h5", *, href: str | None = "a.h5", version: str | None = "3.21.1") -> str:
    """Return a document around some elements."""
    extra = "" if href is None else f" dmrpp:href={quoteattr(href)}"
    extra += "" if version is None else f" dmrpp:version={quoteattr(version)}"
    return f"{HEAD}name={quoteattr(name)}{extra}>\n{body}\n</Dataset>\n"


@dataclass
class Describe:
    """Writes the description of one HDF5 file."""

    path: Path

    def text(self, **options: Any) -> str:
        with h5py.File(self.path) as file:
            return document(self.group(file), self.path.name, **{"href": self.path.name, **options})

    def write(self, **options: Any) -> Path:
        target = self.path.with_name(self.path.name + ".dmrpp")
        target.write_text(self.text(**options), encoding="utf-8")
        return target

    def group(self, group: h5py.Group) -> str:
        parts = [
            f'<Dimension name={quoteattr(name)} size="{item.shape[0]}"/>'
            for name, item in group.items()
            if isinstance(item, h5py.Dataset) and item.is_scale
        ]
        for name, item in group.items():
            if isinstance(item, h5py.Dataset):
                parts += [self.enumeration(name, item), self.variable(name, item)]
            else:
                parts.append(f"<Group name={quoteattr(name)}>{self.group(item)}</Group>")
        return "\n".join(filter(None, [*parts, self.attributes(group)]))

    def attributes(self, owner: Any) -> str:
        hidden = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME")
        return "".join(self.attribute(name, value) for name, value in owner.attrs.items() if name not in hidden)

    def attribute(self, name: str, value: Any) -> str:
        if isinstance(value, str | bytes):
            kind, values = "String", [value if isinstance(value, str) else value.decode()]
        else:
            array = np.atleast_1d(value)
            kind, values = TYPES[f"{array.dtype.kind}{array.dtype.itemsize}"], [repr(item) for item in array.tolist()]
        inner = "".join(f"<Value>{escape(item)}</Value>" for item in values)
        return f'<Attribute name={quoteattr(name)} type="{kind}">{inner}</Attribute>'

    def enumeration(self, name: str, item: h5py.Dataset) -> str:
        members = h5py.check_enum_dtype(item.dtype)
        if members is None:
            return ""
        kind = TYPES[f"{item.dtype.kind}{item.dtype.itemsize}"]
        constants = "".join(f'<EnumConst name={quoteattr(key)} value="{value}"/>' for key, value in members.items())
        return f'<Enumeration name={quoteattr(name + "_t")} basetype="{kind}">{constants}</Enumeration>'

    def variable(self, name: str, item: h5py.Dataset) -> str:
        dimensions = ""
        for axis, size in enumerate(item.shape):
            scales = item.dims[axis].values()
            path = scales[0].name if scales else item.name if item.is_scale else None
            dimensions += f'<Dim size="{size}"/>' if path is None else f"<Dim name={quoteattr(path)}/>"
        text = self.typed(name, item.dtype, dimensions + self.attributes(item) + self.storage(item))
        if item.dtype.kind == "S":
            pad = PADDINGS[item.id.get_type().get_strpad()]
            return text.replace('pad="null_pad"', f'pad="{pad}"')
        return text

    def typed(self, name: str, dtype: np.dtype[Any], inner: str) -> str:
        extra = ""
        if dtype.names is not None:
            kind, inner = "Structure", "".join(self.field(field, dtype[field]) for field in dtype.names) + inner
        elif dtype.kind == "S":
            kind = "String"
            inner += f'<dmrpp:FixedLengthStringArray string_length="{dtype.itemsize}" pad="null_pad"/>'
        elif h5py.check_enum_dtype(dtype) is not None:
            kind, extra = "Enum", f" enum={quoteattr('/' + name + '_t')}"
        else:
            kind = TYPES[f"{dtype.kind}{dtype.itemsize}"]
        return f"<{kind} name={quoteattr(name)}{extra}>{inner}</{kind}>"

    def field(self, name: str, dtype: np.dtype[Any]) -> str:
        base, shape = dtype.subdtype or (dtype, ())
        return self.typed(name, base, "".join(f'<Dim size="{size}"/>' for size in shape))

    def storage(self, item: h5py.Dataset) -> str:
        plist = item.id.get_create_plist()
        if plist.get_layout() == h5py.h5d.COMPACT:
            return f"<dmrpp:compact>{base64.b64encode(item[...].tobytes()).decode()}</dmrpp:compact>"
        order = "BE" if item.dtype.newbyteorder("=") != item.dtype else "LE"
        attributes = f'byteOrder="{order}"' + self.fill(item) + self.filters(plist) + self.offsets(item.dtype)
        return f"<dmrpp:chunks {attributes}>{self.chunks(item)}</dmrpp:chunks>"

    def fill(self, item: h5py.Dataset) -> str:
        if item.dtype.names is not None:
            return ""
        value = item.fillvalue
        return f" fillValue={quoteattr(value.decode() if isinstance(value, bytes) else repr(value.item()))}"

    def filters(self, plist: Any) -> str:
        found = [plist.get_filter(number) for number in range(plist.get_nfilters())]
        names = " ".join(FILTERS[item[0]] for item in found)
        levels = " ".join(str(item[2][0]) for item in found if item[0] == 1)
        return (f' compressionType="{names}"' if names else "") + (f' deflateLevel="{levels}"' if levels else "")

    def offsets(self, dtype: np.dtype[Any]) -> str:
        if dtype.names is None:
            return ""
        numbers = [*(dtype.fields[name][1] for name in dtype.names[1:]), dtype.itemsize]
        return f' structOffset="{" ".join(map(str, numbers))}"'

    def chunks(self, item: h5py.Dataset) -> str:
        if item.chunks is None:
            offset = item.id.get_offset()
            return "" if offset is None else f'<dmrpp:chunk offset="{offset}" nBytes="{item.nbytes}"/>'
        parts = [f"<dmrpp:chunkDimensionSizes>{' '.join(map(str, item.chunks))}</dmrpp:chunkDimensionSizes>"]
        for number in range(item.id.get_num_chunks()):
            info = item.id.get_chunk_info(number)
            mask = f' fm="{info.filter_mask}"' if info.filter_mask else ""
            mask += f' chunkPositionInArray="[{",".join(map(str, info.chunk_offset))}]"'
            parts.append(f'<dmrpp:chunk offset="{info.byte_offset}" nBytes="{info.size}"{mask}/>')
        return "".join(parts)
