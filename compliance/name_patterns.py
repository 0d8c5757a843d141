"""What names in Latin script look like, as regular expressions and sets of words. PURE."""

from __future__ import annotations

import re

from compliance.name_words import ORG_NOUNS

__all__ = [
    "ACRONYM_MAX",
    "ADDRESS",
    "ADDRESS_WORDS",
    "ANNOUNCED",
    "CAMEL",
    "CAPITAL",
    "CHAIN",
    "CODE_AFTER",
    "CODE_BEFORE",
    "CUES",
    "EMPLOYED",
    "FIRM",
    "HEADING_BEFORE",
    "INITIALLED",
    "JOINING",
    "LABELLED",
    "LABELS",
    "LANDMARK",
    "LAUGHTER",
    "LEGAL_FORMS",
    "LETTERS",
    "MIDDLE",
    "ORG_HEADS",
    "ORG_NOUN",
    "ORG_OF",
    "OTHER_ENDS",
    "POSTAL_AFTER",
    "QUIETLY_TITLED",
    "QUIET_PAIR",
    "REALM",
    "SPEAKING",
    "SPOKEN_OF",
    "THING_BEHIND",
    "TITLED",
    "TITLES",
    "WHERE_BEFORE",
    "WORD",
]

LETTERS = "A-Za-zÀ-ÖØ-öø-ɏ"
_UPPER = "A-Z" + "".join(c for c in map(chr, range(0xC0, 0x250)) if c.isupper())
WORD = re.compile(rf"[{LETTERS}]+(?:['’][{LETTERS}]+)?")
_NAME = rf"[{_UPPER}][{LETTERS}]*(?:['’-][{LETTERS}]+)*"
CAPITAL = re.compile(rf"(?<![{LETTERS}])[{_UPPER}][{LETTERS}]+(?:['’][{LETTERS}]+)?")
QUIET_PAIR = re.compile(
    r"(?<![A-Za-zÀ-ɏ0-9_])"
    r"(?=(?P<first>[a-zß-öø-ÿ]{3,20}) (?P<last>[a-zß-öø-ÿ]{4,20})(?![A-Za-zÀ-ɏ0-9_]))"
    r"(?P=first) (?P=last)"
)
_INITIALS = rf"(?:[{_UPPER}]\.[ -]?){{1,3}}"
_PARTICLE = (
    r"(?:de la|de los|de las|de|del|della|di|da|dos|das|do|du|des|van der|van den|van de|van"
    r"|von der|von|vom|zu|zur|ten|ter|bin|ibn|al|el|la|le|of|y)"
)
_MORE = rf"(?: {_PARTICLE})?[ ](?:{_INITIALS}[ ]?)?{_NAME}"
CHAIN = re.compile(rf"(?:{_INITIALS}[ ]?)?{_NAME}(?:{_MORE}){{0,3}}")
TITLED = re.compile(
    rf"(?<![{LETTERS}0-9.])(?:(?:Mr|Mrs|Ms|Mx|Dr|Prof|Mme|Mlle|MM|Sr|Sra|Srta|Sres|Hr|Dott|Sig|Dña)\.?"
    r"|(?:M|D|Fr|Sen|Rep|Gov|Capt|Lt|Sgt|Col|Gen|Rev|Hon|Mgr)\."
    r"|Professor|Sir|Dame|Lord|Lady|Monsieur|Madame|Mademoiselle|Maître|Señora?|Señorita|Herrn?|Frau"
    r"|Signora?|Detective|Nurse|Uncle|Aunt|Don|Doña|Judge|Justice|Senator|President|Chancellor)"
    rf"[  ]+(?P<name>{CHAIN.pattern})"
)
_TITLE_WORDS = """
Mr Mrs Ms Mx Dr Prof Mme Mlle MM Sr Sra Srta Sres Hr Dott Sig Dña M Sen Rep Gov Capt Lt Sgt Col
Rev Hon Mgr Professor Sir Dame Lord Lady Monsieur Madame Mademoiselle Señor Señora Señorita Herr
Frau Signor Signora Judge Justice Senator President mr mrs ms dr
"""
TITLES = frozenset(_TITLE_WORDS.split())
INITIALLED = re.compile(rf"(?<![{LETTERS}0-9.&])(?P<name>{_INITIALS}[ ]?{_NAME})")
QUIETLY_TITLED = re.compile(rf"(?<![{LETTERS}])(?:mr|mrs|ms|dr)\.? (?P<name>[{LETTERS}]{{3,20}})")
ADDRESS = re.compile(
    rf"(?<![{LETTERS}0-9])(?:"
    rf"(?:(?:[0-9]{{1,5}} )?(?:{_NAME} ){{1,3}}[0-9]{{1,5}}[,\s]{{1,3}})?"
    r"(?P<flat>(?i:apt|apartment|suite|ste|appt|wohnung)\.? ?#? ?[0-9]{1,5}[A-Za-z]?)"
    r"|(?:Unit|PSC) [0-9]{2,5},? Box [0-9]{2,5}(?:,?[\n ]{1,2}(?:APO|FPO|DPO),? A[AEP] [0-9]{5})?"
    r"|(?:APO|FPO|DPO),? A[AEP] [0-9]{5}"
    r"|P\.? ?O\.? Box [0-9]{1,6}"
    r"|(?:[0-9]{1,5} )?(?i:rue|avenue|boulevard|via|viale|piazza|calle|avenida|plaza|rua|ul\.)"
    rf"(?: (?:de la|de los|de l'|del|delle|della|de|du|des|d'))? ?{_NAME}(?: {_NAME}){{0,2}}"
    r",? [0-9]{1,5}[A-Za-z]?"
    rf"|(?:[0-9]{{1,5}} )?[{_UPPER}][{LETTERS}]+(?:stra(?:ß|ss)e|gasse|platz|weg|vej|gade|gatan"
    r"|vägen|katu|tie|gata|veien|laan|straat|plein|utca|braut) [0-9]{1,4}[A-Za-z]?"
    rf")(?![{LETTERS}0-9])"
)
ADDRESS_WORDS = frozenset(
    form
    for word in ("apt", "apartment", "suite", "ste", "appt", "box", "apo", "fpo", "dpo")
    for form in (word, word.capitalize(), word.upper())
)
REALM = re.compile(
    rf"(?<![{LETTERS}])(?:Republic|República|République|Republik|Kingdom|State|Province|County|City"
    rf"|Principality|Comté|Département|Provincia|Estado|Land)"
    r" (?:of|de la|de|du|d['’]|del)(?: the)? ?"
    rf"(?P<name>{_NAME}(?: {_NAME}){{0,2}})"
)
POSTAL_AFTER = re.compile(
    r"(?:,? |, ?\n ?)(?!(?:19|20)[0-9]{2}\b)[0-9]{4,6}(?:-[0-9]{3,4})?(?![0-9A-Za-z])"
)
MIDDLE = re.compile(
    rf"(?<![{LETTERS}0-9])(?P<name>(?P<first>{_NAME}) (?:[{_UPPER}]\.? ){{1,2}}(?P<last>{_NAME}))"
)
CODE_BEFORE = "_./@=\\`<{[$"
CODE_AFTER = "_(=/\\`>{["
CAMEL = re.compile(
    rf"(?!Mc|Mac|De|Di|La|Le|Du|Van|Fitz|O['’])[{LETTERS}]*[a-zß-öø-ÿ][{_UPPER}]|[{_UPPER}]{{2,}}[a-z]"
)
LAUGHTER = re.compile(r"(?:[hx]+[aeiu]+){2,}h*|l+o+l+|l+m+a+o+|r+o+f+l+", re.IGNORECASE)
ACRONYM_MAX = 5
_ORG_HEAD_WORDS = """
Bank University Ministry Department Institute Office House College School Court Ministère Ministerio
Universidad Université Universität Università Banco Banque Cámara Chambre ministère ministerio
"""
ORG_HEADS = frozenset(_ORG_HEAD_WORDS.split())
ORG_OF = re.compile(
    rf"(?<![{LETTERS}])(?:{'|'.join(sorted(ORG_HEADS))})"
    r" (?:of|for|de la|de los|de|des|du|del|di|für)(?: the)? "
    rf"{_NAME}(?:(?: of| and| et| y| de la| de| des)? {_NAME}){{0,3}}"
)
ORG_NOUN = re.compile(
    rf"(?<![{LETTERS}])(?:{_NAME} (?:(?:and|&|of) )?){{1,4}}"
    rf"(?i:{'|'.join(sorted(ORG_NOUNS, key=len, reverse=True))})(?![{LETTERS}])"
)
JOINING = re.compile(" (?:and|of) ")
FIRM = re.compile(
    rf"(?<![{LETTERS}])(?:{_NAME} (?:& )?){{1,4}}(?:Inc|LLC|LLP|Ltd|Limited|PLC|Plc|Corp"
    r"|Corporation|GmbH|AG|KG|SE|NV|BV|SA|SAS|SpA|SL|Pty|Oy|AB|Group|Holdings?)(?![A-Za-z0-9])"
)
"""Words before a legal form: they name a firm, unless a given name leads them."""
_LEGAL_FORMS = """
Inc LLC LLP Ltd Limited PLC Plc Corp Corporation GmbH AG KG SE NV BV SA SAS SpA SL Pty Oy AB Group
Holding Holdings
"""
LEGAL_FORMS = frozenset(_LEGAL_FORMS.split())
EMPLOYED = re.compile(
    rf"(?<![{LETTERS}])(?i:works? (?:at|for)|worked (?:at|for)|working (?:at|for)|employed by"
    r"|employee of|employer:|company(?: name)?:|an? year at|CEO of|founder of|shares (?:of|in)) "
    rf"(?P<name>{_NAME}(?: (?:& )?{_NAME}){{0,3}})"
)
HEADING_BEFORE = re.compile(r"(?:^|[.:;!?\n])\s*$")
"""Before `B. Findings`, a heading rather than a person."""
WHERE_BEFORE = re.compile(r"(?<![a-z])(?:in|from|near|to|at|outside|visiting|leaving|desde|à) $")
"""Before a place, though it be in lower case."""
_LABEL = (
    r"(?:sur|last|first|given|full|family|maiden|middle)[ _-]?names?|fname|lname|nachname|vorname"
    r"|prénom|apellidos?|cognome|imię|nazwisko|achternaam|voornaam|applicant|claimant|tenant"
    r"|assignee|grantor|grantee|payee|beneficiary|next of kin|account holder|cardholder"
)
SPOKEN_OF = re.compile(
    rf"(?<![{LETTERS}])"
    r"(?:(?:[Ww]here(?: is|'s)|[Aa]sk(?:ed)?|[Tt]ell|told|met|[Tt]hanks|texted|emailed)"
    rf" (?P<name>{_NAME})(?![{LETTERS}]|['’]s| {_NAME})"
    rf"|(?P<subject>{_NAME})(?= (?:said|says|told|asked|resigned|replied|wrote|texted|claims"
    r"|testified|should have|was born|died)(?![a-z])))"
)
"""A family name alone, where only people stand: `ask Keltner`, `Keltner resigned`."""
_SPEAKING = """
Where where Where's where's Ask ask Asked asked Tell tell told met Thanks thanks texted emailed said
says resigned replied wrote claims testified should was died
"""
SPEAKING = frozenset(_SPEAKING.split())
LABELLED = re.compile(
    rf"(?<![{LETTERS}])(?i:{_LABEL})[\"']?[ \t]{{0,3}}[:=][ \t]{{0,3}}[\"']?"
    rf"(?P<name>(?:{_PARTICLE} )?{_NAME}(?:,? (?:{_PARTICLE} )?(?:{_INITIALS}|{_NAME})){{0,3}})"
)
"""The field of a form, or of a record."""
_LABEL_WORDS = """
name names surname lastname firstname fullname nachname vorname fname lname prénom apellido
apellidos cognome imię nazwisko achternaam voornaam applicant claimant tenant assignee grantor
grantee payee beneficiary kin holder cardholder
"""
LABELS = frozenset(
    form for word in _LABEL_WORDS.split() for form in (word, word.capitalize(), word.upper())
) | {"firstName", "lastName", "fullName", "givenName", "familyName"}
_PLACE_NOUNS = """
street road avenue boulevard lane drive court square trail terrace place villages bridge river
lake mountain valley county city town island islands park beach bay airport station hall
"""
OTHER_ENDS = frozenset(_PLACE_NOUNS.split())
"""What capitalised words end with that name a place, not a person."""
LANDMARK = re.compile(
    rf"(?<![{LETTERS}])(?:{_NAME} ){{1,2}}(?:Tower|Square|Park|Beach|Bridge|Airport|Stadium|River"
    rf"|Lake|Mountains?|Canyon|County|Valley|Island|Bay|Harbou?r|Forest|Castle|Cathedral)(?![{LETTERS}])"
)
"""Where one can go: `Haldon Tower`, `Cook County`."""
THING_BEHIND = re.compile(
    r" (?:sauce|mustard|boots|cheese|bread|salad|beans?|sprouts|blue|oak|silk|linen|rug|wool|coffee"
    r"|tea|wine|beer|steak|pizza|roast|ham|lace)(?![a-z])|(?: [0-9]{1,2}(?:[,;]|$| -)| drew )"
)
"""Behind a place that is a kind of thing, or a team: `Dijon mustard`, `Madrid 2`."""
ANNOUNCED = re.compile(
    r"(?<![a-z])(?:name(?: is|'s|:)?|i am|i'm|mr\.?|mrs\.?|ms\.?|dr\.?|prof\.?"
    r"|(?:son|daughter|wife|husband|brother|sister|mom|dad|uncle|aunt|cousin|grandma|grandpa|friend),?"
    r"|this is|its|it's|hi|hey|hello|thanks|thx|ask|tell|cc|boss|neighbou?r|dear"
    r"|regards,?|sincerely,?|signed|named)"
    r" (?P<name>[a-zà-öø-ÿ]{3,20})(?![a-z])",
    re.ASCII | re.IGNORECASE,
)
"""Behind these a name may follow in lower case."""
_CUE_WORDS = """
name name's am i'm this its it's hi hey hello thanks thx ask tell cc boss neighbor neighbour
mom dad uncle aunt cousin grandma grandpa friend mr mrs ms dr prof son daughter
wife husband brother sister dear regards
sincerely signed named
"""
CUES = frozenset(
    form
    for word in _CUE_WORDS.split()
    for form in (word, word.capitalize(), word.upper(), word.title(), word.replace("'", "’"))
)
