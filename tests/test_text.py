"""Text files as tables: what is recognised, what is said, and what is refused."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from aevb.data.tables import read_frame
from aevb.errors import AevbWarning, DataError


def table(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> dict[str, list[Any]]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_frame(path).table.to_dict(as_series=False)


READS = {  # a file → its columns
    "commas": ("a,b\n1,x\n2,y\n", {"a": [1, 2], "b": ["x", "y"]}),
    "semicolons, decimal commas": ("a;b\n1,5;x\n2,5;y\n", {"a": [1.5, 2.5], "b": ["x", "y"]}),
    "tabs": ("a\tb\n1\tx y\n2\ty\n", {"a": [1, 2], "b": ["x y", "y"]}),
    "bars": ("a|b\n1|x,y\n2|y\n", {"a": [1, 2], "b": ["x,y", "y"]}),
    "runs of blanks": ("a b c\n1  2.5   x\n 2 3.5 ?\n", {"a": [1, 2], "b": [2.5, 3.5], "c": ["x", None]}),
    "blanks, decimal commas": ("1,5 2,5\n3,5 4,5\n", {"x0": [1.5, 3.5], "x1": [2.5, 4.5]}),
    "blanks, quotes": ('n m\n"New York" 1\nOslo 2\n', {"n": ["New York", "Oslo"], "m": [1, 2]}),
    "quotes": ('n,v\n"S, J",1\n"D ""X""",2\n"two\nlines",3\n', {"n": ["S, J", 'D "X"', "two\nlines"], "v": [1, 2, 3]}),
    "quotes after blanks": ('n, v\n "S, J", 1\n "D", 2\n', {"n": ["S, J", "D"], "v": [1, 2]}),
    "stray quotes": ('a,b\n5" pipe,1\n6" pipe,2\n', {"a": ['5" pipe', '6" pipe'], "b": [1, 2]}),
    "semicolons in text": ("i,t\n1,a;b\n2,c;d\n3,e\n", {"i": [1, 2, 3], "t": ["a;b", "c;d", "e"]}),
    "one column of words": ("city\nNew York\nOslo\n", {"city": ["New York", "Oslo"]}),
    "one column with a hole": ("x\n1\n\n3\n", {"x": [1, None, 3]}),
    "thousands": ('a,b\n"1,234.5",1\n"2,345,678",2\n', {"a": [1234.5, 2345678.0], "b": [1, 2]}),
    "thousands with dots": ("a;b\n1.234,5;1\n2.345.678,25;2\n", {"a": [1234.5, 2345678.25], "b": [1, 2]}),
    "points between thousands": (
        "a;b;c;d\n1,5;1.234;0.125;48.1\n2,5;2.345.678;1.500;11.250\n3,5;?;2.125;1.125\n4,5;987;3.250;2.250\n",
        {
            "a": [1.5, 2.5, 3.5, 4.5],
            "b": [1234, 2345678, None, 987],
            "c": [0.125, 1.5, 2.125, 3.25],
            "d": [48.1, 11.25, 1.125, 2.25],
        },
    ),
    "single thousands with points": ("a;b\n1,5;1.234\n2,5;2.345\n", {"a": [1.5, 2.5], "b": [1234, 2345]}),
    "thousands beside tabs": ("a\tb\n473,715\t8.604\n1,201\t3.125\n", {"a": [473715, 1201], "b": [8.604, 3.125]}),
    "thousands beside fractions": ("a;b\n473,715;36.75\n1,201;3.5\n", {"a": [473715, 1201], "b": [36.75, 3.5]}),
    "decimal commas in quotes": ('a,b\n"7,428","3,90"\n"5,664","1,5"\n', {"a": [7.428, 5.664], "b": [3.9, 1.5]}),
    "no thousands after a zero": ('a,b\n"0,831",x\n"7,428",y\n', {"a": [0.831, 7.428], "b": ["x", "y"]}),
    "decimal commas beside blanks": ("a b\n1,5 2,75\n3,25 4\n", {"a": [1.5, 3.25], "b": [2.75, 4.0]}),
    "points without decimal commas": ("a;b\n1;1.234\n2;2.345\n", {"a": [1, 2], "b": [1.234, 2.345]}),
    "percents, money": ('a,b\n10%,"$1,000"\n12.5%,$20.5\n', {"a": [10.0, 12.5], "b": [1000.0, 20.5]}),
    "prices": (
        "a;b;c\n12,50 €;1.234 €;12,5 %\n1.234,75 €;975 €;7 %\n",
        {"a": [12.5, 1234.75], "b": [1234, 975], "c": [12.5, 7.0]},
    ),
    "prices with points": ("a,b\n12.50 €,$-1\n3.75 €,-$2\n", {"a": [12.5, 3.75], "b": [-1, -2]}),
    "losses": ('a,b\n"($1,234.50)","(1,234)"\n$5.00,567\n', {"a": [-1234.5, 5.0], "b": [-1234, 567]}),
    "thin blanks, quotes": ("a;b\n1\u202f234\u00a0567;1'234,5\n5;2,25\n", {"a": [1234567, 5], "b": [1234.5, 2.25]}),
    "a true minus": ("a,b\n\u22121.5,1\n2,\u22123\n", {"a": [-1.5, 2.0], "b": [1, -3]}),
    "currencies": (
        'a,b,c\n"₩83,902","1,050.5 ₽",$5\n₩900,3 ₽,1730\n',
        {"a": [83902, 900], "b": [1050.5, 3.0], "c": [5, 1730]},
    ),
    "several currencies": ('a,b\n$5,"5 €"\n€7,"6 €"\n', {"a": ["$5", "€7"], "b": [5, 6]}),
    "codes like currencies": ("a,b\nEUR1,x\nUSD2,y\n", {"a": ["EUR1", "USD2"], "b": ["x", "y"]}),
    "points beside sure points": (
        "a;v;n\n1,5;2.1;1.234\n2,5;3.4;5.678\n",
        {"a": [1.5, 2.5], "v": [2.1, 3.4], "n": [1234, 5678]},
    ),
    "exponents tell no mark": ("a;b\n1E5;1,234\n3E4;2,345\n", {"a": [1e5, 3e4], "b": [1.234, 2.345]}),
    "rows of years": (
        "Alice,1950,1972\nBob,1940,1970\nCarl,1960,1980\nDora,1955,1977\n",
        {"x0": ["Alice", "Bob", "Carl", "Dora"], "x1": [1950, 1940, 1960, 1955], "x2": [1972, 1970, 1980, 1977]},
    ),
    "rows of three years": (
        "Al,1950,1972,2010\nBo,1940,1970,2001\nCy,1960,1980,2015\n",
        {"x0": ["Al", "Bo", "Cy"], "x1": [1950, 1940, 1960], "x2": [1972, 1970, 1980], "x3": [2010, 2001, 2015]},
    ),
    "the largest row first": (
        "Tokyo,37000,52000\nBonn,300,400\nJena,110,150\nKiel,240,250\n",
        {"x0": ["Tokyo", "Bonn", "Jena", "Kiel"], "x1": [37000, 300, 110, 240], "x2": [52000, 400, 150, 250]},
    ),
    "names by NumPy": ("# x,y\n1.5,2\n2.5,3\n", {"x": [1.5, 2.5], "y": [2, 3]}),
    "names by NumPy, blanks": ("# x y\n1.5 2\n2.5 3\n", {"x": [1.5, 2.5], "y": [2, 3]}),
    "a comment above numbers": ("# made by foo, version 3\n1.5,2\n2.5,3\n", {"x0": [1.5, 2.5], "x1": [2, 3]}),
    "no numbers": ("a,b\n--5,$\n5,$5\n", {"a": ["--5", "5"], "b": ["$", "$5"]}),
    "signs, exponents": ("a,b\n+1,1e-5\n2,.5\n", {"a": [1, 2], "b": [1e-5, 0.5]}),
    "leading zeros are codes": ("zip,v\n01234,1\n99999,2\n", {"zip": ["01234", "99999"], "v": [1, 2]}),
    "large integers": ("i,v\n9007199254740993,1\n18446744073709551615,2\n", {"i": [2**53 + 1, 2**64 - 1], "v": [1, 2]}),
    "integers beyond 64 bits": (f"i,v\n{10**30},1\n2,2\n", {"i": [1e30, 2.0], "v": [1, 2]}),
    "long numbers are names": (f"i,v\n{10**30},1\n{10**29},2\n", {"i": [str(10**30), str(10**29)], "v": [1, 2]}),
    "no header": ("1,x\n2,y\n", {"x0": [1, 2], "x1": ["x", "y"]}),
    "no header, words": ("p,x\ne,x\ne,b\np,x\n", {"x0": ["p", "e", "e", "p"], "x1": ["x", "x", "b", "x"]}),
    "header, words": ("class,cap\ne,x\ne,b\np,x\n", {"class": ["e", "e", "p"], "cap": ["x", "b", "x"]}),
    "numbers as names": ("0,1,2\n.5,2,3\n.6,3,1\n", {"0": [0.5, 0.6], "1": [2, 3], "2": [3, 1]}),
    "numbers as names above a count": ("0,1,2\n.5,2,3\n.6,3,2\n", {"0": [0.5, 0.6], "1": [2, 3], "2": [3, 2]}),
    "a row as names": ("0,1,2\n1,2,2\n", {"x0": [0, 1], "x1": [1, 2], "x2": [2, 2]}),
    "a cell beyond Python's limit": (f"a,b\n{'x' * 140_000},1\ny,2\n", {"a": ["x" * 140_000, "y"], "b": [1, 2]}),
    "a header beyond the sample": (f"{'n' * 300_000},b\n1.5,1\n2,2\n", {"n" * 300_000: [1.5, 2.0], "b": [1, 2]}),
    "a line separator in a name": ("a\u2028b,c\n1,2\n3,4\n", {"a\u2028b": [1, 3], "c": [2, 4]}),
    "years as names": ("n,2010,2011,2012\nA,1,2,3\n", {"n": ["A"], "2010": [1], "2011": [2], "2012": [3]}),
    "wavelengths as names": (
        "id,400,410\na,.5,.25\nb,.75,.5\nc,.5,.5\n",
        {"id": ["a", "b", "c"], "400": [0.5, 0.75, 0.5], "410": [0.25, 0.5, 0.5]},
    ),
    "a year among names": (
        "k,score,2020\na,1,5\nb,2,70\nc,3,9\n",
        {"k": ["a", "b", "c"], "score": [1, 2, 3], "2020": [5, 70, 9]},
    ),
    "rows that count": (
        "1,x,2\n2,y,3\n3,z,5\n4,z,6\n",
        {"x0": [1, 2, 3, 4], "x1": ["x", "y", "z", "z"], "x2": [2, 3, 5, 6]},
    ),
    "years with gaps as names": (
        "k,2000,2010,2020\nA,1999,3,4\nB,2500,3,2\n",
        {"k": ["A", "B"], "2000": [1999, 2500], "2010": [3, 3], "2020": [4, 2]},
    ),
    "cells of raised digits": (
        "k,2000,2001,2003\na,²,1,2\nb,²,3,4\n",
        {"k": ["a", "b"], "2000": ["²", "²"], "2001": [1, 3], "2003": [2, 4]},
    ),
    "a row with words": ("a,1,5\nb,2,7\nc,1,6\n", {"x0": ["a", "b", "c"], "x1": [1, 2, 1], "x2": [5, 7, 6]}),
    "a row with a period": ("A,2000,2010\nB,1990,2012\n", {"x0": ["A", "B"], "x1": [2000, 1990], "x2": [2010, 2012]}),
    "one row": ("1,2,3\n", {"x0": [1], "x1": [2], "x2": [3]}),
    "an index without a name": (",a\n0,1.5\n1,2\n", {"": [0, 1], "a": [1.5, 2.0]}),
    "R's row names": ('"a","b"\n"1",1.5,2\n"2",2.5,3\n', {"": [1, 2], "a": [1.5, 2.5], "b": [2, 3]}),
    "separators at the end": ("a,b\n1,2,\n3,4,\n", {"a": [1, 3], "b": [2, 4]}),
    "Excel's first line": ("sep=;\na;b\n1;2\n3;4\n", {"a": [1, 3], "b": [2, 4]}),
    "comments": ("# mine\na,b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
    "names after a mark": ("# by x, y\n#chrom\tend\nx\t5\ny\t7\n", {"chrom": ["x", "y"], "end": [5, 7]}),
    "a mark as a name": ("#,a,b\n1,x,2\n2,y,3\n", {"#": [1, 2], "a": ["x", "y"], "b": [2, 3]}),
    "a comment of as many words": ("# mine, too\na,b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
    "lines in a name": ('"a\nb",c\n1,2\n3,4\n', {"a\nb": [1, 3], "c": [2, 4]}),
    "comments above one column": ("# mine\na\n1\n\n3\n", {"a": [1, None, 3]}),
    "old line ends": ("a,b\r1,2\r3,4\r", {"a": [1, 3], "b": [2, 4]}),
    "Windows' line ends": ("a,b\r\n1,2\r\n3,4", {"a": [1, 3], "b": [2, 4]}),
    "empty lines": ("a,b\n\n1,2\n\n3,4\n\n", {"a": [1, 3], "b": [2, 4]}),
    "an empty row": ("a,b\n1,2\n,\n3,4\n", {"a": [1, None, 3], "b": [2, None, 4]}),
    "an empty column": ("a,b\n1,NA\n2,\n3,?\n", {"a": [1, 2, 3], "b": [None, None, None]}),
    "blanks round values": (" a , b \n 1 , x\n 2 , ?\n 3, y \n", {"a": [1, 2, 3], "b": ["x", None, "y"]}),
    "plus and minus are levels": ("a,b\n1,+\n2,-\n3,+\n", {"a": [1, 2, 3], "b": ["+", "-", "+"]}),
    "a dash among numbers": ("a,b\n1,5\n-,6\n3,-\n", {"a": [1, None, 3], "b": [5, 6, None]}),
}  # fmt: skip


@pytest.mark.parametrize("case", READS)
def test_a_file_is_read(case: str, tmp_path: Path) -> None:
    text, columns = READS[case]
    assert table(tmp_path, text) == columns


@pytest.mark.parametrize(
    "mark", ["", "NA", "N/A", "nan", "NaN", "null", "NULL", "?", "None", "-", ".", "#N/A", " ? ", "<NA>", "#DIV/0!"]
)
def test_marks_of_missing_values(mark: str, tmp_path: Path) -> None:
    """Between numbers and between words, and each is said with its number of cells."""
    path = tmp_path / "t.csv"
    path.write_text(f"a,b,c\n1,x,1\n{mark},{mark},2\n3,y,3\n4,x,4\n")
    frame = read_frame(path)
    assert frame.table.to_dict(as_series=False) == {"a": [1, None, 3, 4], "b": ["x", None, "y", "x"], "c": [1, 2, 3, 4]}
    said = repr(mark.strip()) if mark.strip() else "An empty cell"
    assert f"{said} counts as missing: 2 cells." in frame.notes


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = "Größe,café\n1,é\n2,ü\n3,é\n"
    assert table(tmp_path, text.encode(encoding)) == {"Größe": [1, 2, 3], "café": ["é", "ü", "é"]}


SCRIPTS = {
    "cp949": ("이름,도시\n", ["김철수", "이영희", "박민수", "최지우"], ["서울", "부산", "대구", "인천", "광주"]),
    "cp932": ("名前,都市\n", ["田中", "鈴木", "佐藤", "山本"], ["東京", "大阪", "京都", "アオモリ"]),
    "gb18030": ("姓名,城市\n", ["王伟", "李娜", "张敏", "刘洋"], ["北京", "上海", "广州", "深圳"]),
    "big5": ("姓名,城市\n", ["王偉", "李娜", "張敏", "劉洋"], ["臺北", "高雄", "臺中", "臺南"]),
    "cp1251": ("имя,город\n", ["Иван", "Ольга", "Пётр", "Анна"], ["Москва", "Казань", "Тверь", "Омск"]),
    "cp1253": ("όνομα,πόλη\n", ["Γιώργος", "Μαρία", "Νίκος"], ["Αθήνα", "Πάτρα", "Βόλος", "Χανιά"]),
    "cp1252": ("prénom,°C\n", ["Hélène", "João", "Åsa", "Nicolò"], ["5 €", "6 µm", "São Paulo", "Besançon"]),
}


@pytest.mark.parametrize("encoding", SCRIPTS)
def test_the_script_tells_the_encoding_and_that_is_said(encoding: str, tmp_path: Path) -> None:
    names, first, second = SCRIPTS[encoding]
    choose = random.Random(0)
    rows = [(choose.choice(first), choose.choice(second)) for _ in range(60)]
    text = names + "".join(f"{a},{b}\n" for a, b in rows)
    with pytest.warns(
        AevbWarning, match=rf"t\.csv is not in UTF-8; it is read as {encoding}\. Where letters are wrong"
    ):
        found = table(tmp_path, text.encode(encoding))
    assert [*found] == names.strip().split(",")
    assert [*zip(*found.values(), strict=True)] == rows


@pytest.mark.parametrize("words", ["ÉÈÀ", "CRÉÉE", "ÄÖÜ", "•••", "«éé", "5\xa0\xa0€", "°C", "µm ±½"])
def test_latin_letters_and_signs_are_western(words: str, tmp_path: Path) -> None:
    found = table(tmp_path, f"a,b\n{words},1\n{words},2\n".encode("cp1252"))
    assert found == {"a": [words] * 2, "b": [1, 2]}


def test_a_compressed_file(tmp_path: Path) -> None:
    assert table(tmp_path, gzip.compress(b"a,b\n1,2\n3,4\n"), "t.csv.gz") == {"a": [1, 3], "b": [2, 4]}


def test_what_is_recognised_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("1,5;é\n2,5;?\n3;é\n".encode("cp1252"))
    assert read_frame(path).notes == (
        "The text is read as cp1252.",
        "2 columns, separated by semicolons; no line has the names, so they are x0 to x1.",
        "'?' counts as missing: 1 cells.",
        "Columns whose numbers are written with decimal commas: 1.",
    )


REFUSED = {
    "empty": (b"", "is empty"),
    "empty lines": (b"\n \n", "is empty"),
    "a header alone": (b"a,b,c\n", "has a header line and no rows"),
    "short line": (b"a,b,c\n1,2,3\n4,5\n6,7,8\n", "line 3 has 2 values, but others have 3"),
    "long line": (b"a,b,c\n1,2,3\n4,5,6\n6,7,8,9\n", "line 4 has 4 values, but others have 3"),
    "long line after a quoted one": (b'a,b,c\n1,"x\ny",3\n4,5,6,7\n6,7,8\n', "line 4 has 4 values, but others have 3"),
    "long line under comments": (b"# x\n# y\na,b\n1,2\n3,4,5\n6,7\n", "line 5 has 3 values, but others have 2"),
    "long line under R's header": (b'"a","b"\n"1",2,3\n"2",3,4,5\n"3",4,5\n', "line 3 has 4 values, but others have 3"),
    "names twice": (b"a,b,a\n1,2,3\n", "several columns of the name 'a'"),
    "open quote": (b'a,b\n1,"x\n2,y\n', "nothing closes it"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is a picture"),
    "bytes": (bytes(range(256)) * 20, "is a binary file"),
    "a workbook": (b"PK\x03\x04 and more", "an Excel workbook"),
    "Parquet": (b"PAR1 and more", "is a Parquet file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_file_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    with pytest.raises(DataError, match=r"t\.csv") as fault:
        table(tmp_path, content)
    assert words in str(fault.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_frame(tmp_path / "t.csv")
