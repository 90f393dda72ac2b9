"""Names of months and days of the week in English and other European languages."""

import re

# Of each month: English, German, French, Spanish, Italian, Portuguese, Dutch, where they differ,
# and their usual abbreviations. No name means two months.
_MONTHS = (
    "january januar jänner janvier enero gennaio janeiro januari jan jän janv ene gen",
    "february februar feber février fevrier febrero febbraio fevereiro februari feb févr fevr fév "
    "fev",
    "march märz maerz mars marzo março marco maart mar mär mrz mrt",
    "april avril abril aprile apr avr abr",
    "may mai mayo maggio maio mei mag",
    "june juni juin junio giugno junho jun giu",
    "july juli juillet julio luglio julho jul juil lug",
    "august août aout agosto augustus aug aoû aou ago",
    "september septembre septiembre setiembre settembre setembro sep sept set",
    "october oktober octobre octubre ottobre outubro oct okt ott out",
    "november novembre noviembre novembro nov",
    "december dezember décembre decembre diciembre dicembre dezembro dec dez déc dic",
)
MONTH_OF = {name: month for month, names in enumerate(_MONTHS, start=1) for name in names.split()}
"""The month (1 to 12) that a word in lower case names, without a point behind it."""

_DAYS = (
    "mon monday montag lundi lunes lunedì segunda-feira maandag lun",
    "tue tues tuesday dienstag mardi martes martedì terça-feira dinsdag di",
    "wed wednesday mittwoch mercredi miércoles mercoledì quarta-feira woensdag mi mer",
    "thu thur thurs thursday donnerstag jeudi jueves giovedì quinta-feira donderdag do jeu",
    "fri friday freitag vendredi viernes venerdì sexta-feira vrijdag fr ven",
    "sat saturday samstag sonnabend samedi sábado sabato zaterdag sa sam",
    "sun sunday sonntag dimanche domingo domenica zondag so dim mo",
)
WEEKDAY = (
    r"(?i)^(?:" + "|".join(sorted((re.escape(d) for d in " ".join(_DAYS).split()), reverse=True))
    + r")\.?,?\s+"
)  # fmt: skip
"""A day of the week before a date."""
MONTH_WORD = r"\p{L}{3,10}"
