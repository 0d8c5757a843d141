"""Letters of other alphabets that look like Latin ones. PURE.

Source: Unicode Technical Standard 39, confusables.txt (Unicode License v3), the part of it that
looks like one ASCII letter or digit, in the alphabets a keyboard or a font brings along; with
small capitals and a few letters that are taken for Latin in lower case. What NFKC maps already
(mathematical, full-width, circled letters) is not repeated here.
"""

from __future__ import annotations

__all__ = ["LOOKALIKES"]

_PAIRS = (
    # Latin
    (
        "ıƄƍƒƖƦƧƷƼƽǀȜȢȣɑɔəɛɡɢɣɩɪɯɴʀʋʏʙʜʟᴀᴄᴅᴇᴊᴋᴍᴏᴑ",
        "ibgfIR235sl388aceegGyiiwNRuyBHLAcDEJKMoo",
    ),
    (
        "ᴘᴛᴜᴠᴡᴢᶃᶌẝỿꜰꜱꝚꝪꝮꞘꞙꞟꞫꞲꞳꞴꬲꬵꬽꭇꭈꭎꭒꭚ",
        "PTuvwzgyfyFs239Ffu3JXBeforruuy",
    ),
    # Cyrillic
    (
        "ЅІЈАВЕЗКМНОРСТУХЬабвгекмнопрстухѕіјѡѴѵҐҮ",
        "SIJABE3KMHOPCTYXba6brekmhonpctyxsijwVvGY",
    ),
    (
        "үһҽӀӏӠԁԌԛԜԝꙄꙇ",
        "yheIi3dGqWw2i",
    ),
    # Greek
    (
        "ͿΑΒΕΖΗΙΚΜΝΟΡΤΥΧαβγεηικνορστυχωϜϳϺᴦ",
        "JABEZHIKMNOPTYXabyeniknopotuxwFjMr",
    ),
    # Armenian
    (
        "ՍՏՕագզլհոռստցքօ",
        "USOwqqlhnnusgpo",
    ),
    # Cherokee
    (
        "ᎠᎡᎢᎥᎩᎪᎫᎬᎳᎷᎻᎽᏀᏂᏃᏎᏏᏒᏔᏕᏙᏚᏞᏟᏢᏦᏧᏮᏳᏴꭵꮁꮃꮓꮩꮪꮯ",
        "DRTiYAJEWMHYGhZ4bRWSVSLCPKd6GBirwzvsc",
    ),
    # Coptic
    (
        "ϨⲁⲂⲅⲈⲉⲎⲒⲔⲘⲚⲞⲟⲢⲣⲤⲥⲦⲨⲬⳊⳌⳐⳒ",
        "2aBrEeHIKMNOoPpCcTYX93L6",
    ),
    # Lisu
    (
        "ꓐꓑꓒꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ",
        "BPdDTGKJCZFMNLSRVHWXYAElOU",
    ),
    # Canadian
    (
        "ᐯᑌᑭᑯᑲᒍᒪᒿᕁᕼᕽᖇᖯᖴᗅᗞᗪᗰᗷ᙭᙮",
        "VUPdbJL2xHxRbFADDMBXx",
    ),
    # Tifinagh
    (
        "ⴸⴹⵏⵔⵕⵝ",
        "VElOQX",
    ),
    # Georgian
    (
        "ყჿ",
        "yo",
    ),
)

LOOKALIKES: dict[str, str] = {
    character: latin
    for theirs, ours in _PAIRS
    for character, latin in zip(theirs, ours, strict=True)
}
"""What each look-alike stands for."""
