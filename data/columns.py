"""Columns of people's tables under the names that people give them, and what each is used for.

Names are compared without regard to case, spaces and marks: "Patient ID" is `patient_id`. What is
taken under another name, and what is not used, goes into the account.
"""

from collections.abc import Mapping, Sequence

from ..base.account import note
from ..base.errors import InputError, fail, nearest, shown

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "slide": (
        "slide", "slide_id", "slide_name", "wsi", "image", "image_id", "file", "filename",
        "file_name", "path",
    ),
    "image": (
        "image", "image_index", "image_path", "image_id", "image_name", "img", "file", "filename",
        "file_name", "filepath", "path", "picture", "dicom", "dicom_path", "dicom_id", "imageid",
        "image_file", "file_path", "img_path", "photo", "rgb", "rgb_path",
    ),
    "depth": (
        "depth", "depth_path", "depth_map", "depth_image", "depth_file", "disparity",
    ),
    "mask": (
        "mask", "mask_path", "mask_file", "gt", "gt_path", "ground_truth", "groundtruth",
        "annotation", "segmentation",
    ),
    "set": ("set", "data_set", "dataset"),
    "group": ("group", "group_id", "sequence", "sequence_id", "video", "video_id"),
    "label": (
        "label", "labels", "class", "class_name", "target", "diagnosis", "category", "finding",
        "finding_label", "finding_labels", "y",
    ),
    "patient": (
        "patient", "patient_id", "patientid", "patient_name", "pid", "subject", "subject_id",
        "subjectid", "case", "case_id", "caseid", "case_submitter_id", "mrn",
        "medical_record_number", "patient_number", "patient_no", "patient_nr", "patient_code",
        "pat_id", "participant", "participant_id", "bcr_patient_barcode",
    ),
    "identity": (
        "identity", "id", "identity_id", "person", "person_id", "pid", "individual", "label",
        "class", "product", "product_id", "vehicle", "vehicle_id",
    ),
    "camera": ("camera", "camera_id", "cam", "cam_id", "camid"),
    "part": ("part", "split", "fold", "set", "subset", "partition"),
    "view": ("view", "view_position", "viewposition", "projection", "ap_pa", "frontal_lateral"),
    "source": ("source", "site", "hospital", "institution", "dataset", "scanner", "centre"),
    "audio": (
        "audio", "audio_filepath", "audio_path", "audio_file", "path", "file", "wav", "filename",
        "file_name", "file_path", "filepath", "wav_path", "recording", "clip",
    ),
    "text": ("text", "transcript", "transcription", "sentence", "transcript_text"),
    "start": ("start", "offset", "start_time", "begin", "onset"),
    "end": ("end", "end_time", "stop", "offset_end"),
    "duration": ("duration", "dur", "length"),
    "speaker": (
        "speaker", "spk_id", "speaker_id", "spk", "speakerid", "speaker_name", "client_id",
        "participant", "participant_id", "subject", "subject_id", "patient", "patient_id", "case",
        "case_id",
    ),
    "id": ("id", "name", "utt_id", "utterance", "utterance_id", "utt", "segment_id"),
    "words": ("words",),
    "date": (
        "date", "ds", "timestamp", "time", "datetime", "date_time", "time_stamp", "ts",
        "datum", "fecha", "zeit", "zeitstempel", "zeitpunkt", "date_utc", "time_utc", "utc_time",
        "datetime_utc",
        "timestamp_utc", "local_time", "date_local", "day", "week", "month", "quarter", "year",
        "period", "tag", "woche", "monat", "quartal", "jahr", "order_date", "invoice_date",
        "sales_date", "transaction_date", "observation_date", "calendar_date", "week_start",
        "week_ending", "month_end", "month_start", "business_date", "trading_date", "trade_date",
        "start_date", "end_date", "created_at",
    ),
    "series": (
        "unique_id", "series", "series_id", "series_name", "ts_id", "tsid", "item_id", "item",
        "sku", "sku_id", "product", "product_id", "article", "article_id", "store", "store_id",
        "store_nbr", "shop", "shop_id", "outlet", "warehouse", "customer", "customer_id", "client",
        "client_id", "account", "account_id", "household", "household_id", "meter", "meter_id",
        "sensor", "sensor_id", "station", "station_id", "device", "device_id", "machine",
        "machine_id", "site", "site_id", "location", "location_id", "region", "state", "country",
        "city", "ticker", "symbol", "stock", "asset", "family", "category", "dept", "department",
        "channel", "brand", "segment", "group", "group_id", "node", "node_id", "line", "id",
        "artikel", "filiale", "kunde", "produkt",
    ),
    "mpp": ("mpp", "microns_per_pixel", "mpp_x", "resolution"),
}  # fmt: skip
"""Names of columns in lower case with "_", by what they hold; the first is our own."""


def plain_name(name: str) -> str:
    """A name in lower case, with "_" for everything that is no letter or digit.

    >>> plain_name(" Patient ID")
    'patient_id'
    """
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    return "_".join(words)


def is_named(column: str, field: str) -> bool:
    """Whether a column has one of the usual names of a field."""
    return plain_name(column) in SYNONYMS[field]


def parse_columns(pairs: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """The option --columns: `("slide=slide_id",)` as {"slide": "slide_id"}.

    fields: what may be named on the left. Raises InputError for anything else.
    """
    chosen: dict[str, str] = {}
    for pair in pairs:
        field, mark, column = pair.partition("=")
        if not mark or not column:
            raise InputError(f"--columns {pair}: should be FIELD=COLUMN, such as {fields[0]}=name")
        if field not in fields:
            raise InputError(f"--columns {pair}: no field {shown(field)}{nearest(field, fields)}")
        chosen[field] = column
    return chosen


def find_columns(
    where: object,
    columns: Sequence[str],
    fields: Sequence[str],
    *,
    required: Sequence[str] = (),
    chosen: Mapping[str, str] | None = None,
    unused_noted: bool = True,
    synonyms: Mapping[str, Sequence[str]] = SYNONYMS,
) -> dict[str, str]:
    """The column of a table that holds each field; fields that the table lacks are left out.

    where: the table, for messages. columns: its names. fields: what to look for, keys of
    `SYNONYMS`; a column is used for one of them only, the first that has it. chosen: columns that
    the user named, by field. unused_noted: whether the other columns go into the account as not
    used. synonyms: the names of each field.

    Raises InputError where a required field is missing, a column that was chosen does not exist,
    and where two columns could hold the same field.
    """
    found: dict[str, str] = {}
    for field, column in (chosen or {}).items():
        if column not in columns:
            raise fail(
                f"{where}: --columns {field}={column}",
                f"there is no column {shown(column)}{nearest(column, columns)}",
            )
        found[field] = column
    # Our own names first, so that a synonym of one field does not take another's column.
    for field in fields:
        if field not in found and field in columns and field not in found.values():
            found[field] = field
    for field in fields:
        if field in found:
            continue
        taken = set(found.values())
        fitting = [
            column
            for synonym in dict.fromkeys(synonyms[field])
            for column in columns
            if plain_name(column) == synonym and column not in taken
        ]
        if len(fitting) > 1 and field != "image" and field != "slide":
            both = " and ".join(map(shown, fitting[:2]))
            cure = f"say which with --columns {field}={fitting[0]}"
            raise fail(where, f"has columns {both}, which could both be the {field}; {cure}")
        if fitting:
            found[field] = fitting[0]
    for field in required:
        if field not in found:
            cure = f"name it with --columns {field}=COLUMN"
            raise fail(where, f"there is no column {shown(field)}{_listed(columns)}; {cure}")
    for field, column in found.items():
        if column != field:
            note("columns", f"{shown(column)} is taken as the {field}")
    if unused_noted:
        used = set(found.values())
        unused = [column for column in columns if column not in used]
        if unused:
            note("columns", "not used", unused)
    return found


def _listed(columns: Sequence[str]) -> str:
    return f"; it has {', '.join(map(shown, columns[:40]))}" + (", …" if columns[40:] else "")


def note_groups(noun: str, items: str, column: str | None, groups: Sequence[str]) -> None:
    """Note what is kept together in one part.

    noun: what a group is called, such as "patient"; items: what its members are called, in the
    plural; column: the column that says it, None where each item is its own group; groups: of each
    item.
    """
    named = [group for group in groups if group]
    if column is None:
        what = f"there is no column of {noun}s: each of the {items} counts as its own group"
        note("groups", what)
        return
    count = f"{len(named):,} {items} of {len(set(named)):,} {noun}s"
    note("groups", f"{count} (column {shown(column)})")
    if len(named) < len(groups):
        what = f"{items} without a {noun}, each its own group"
        note("groups", what, count=len(groups) - len(named))
