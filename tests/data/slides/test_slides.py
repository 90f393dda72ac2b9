"""Slides: OpenSlide and plain images behind one interface, resolution, damage, lists."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.slides import slides as wsi
from headwise.data.slides.generate import draw_slide, write_pyramid, write_sample_slides
from headwise.data.slides.slides import Slide, list_slides


def gradient(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, (x + y) % 256], 2).astype(np.uint8)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "a.tiff"
    write_pyramid(path, gradient(700, 500), mpp=0.25)
    return path


def test_a_pyramid_is_read_at_its_levels(pyramid) -> None:
    with Slide(pyramid) as slide:
        assert (slide.reader, slide.size) == ("openslide", (700, 500))
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)
        picture = gradient(700, 500)
        np.testing.assert_array_equal(
            slide.read(100, 60, (64, 32), (64, 32)), picture[60:92, 100:164]
        )
        half = slide.read(128, 128, (64, 64), (32, 32))
        np.testing.assert_array_equal(
            half, np.asarray(Image.fromarray(picture).reduce(2))[64:96, 64:96]
        )
        assert slide.scale(0.5) == pytest.approx(2.0, rel=1e-4)


def test_what_lies_beyond_the_slide_is_white(pyramid, tmp_path) -> None:
    plain = tmp_path / "a.png"
    Image.fromarray(gradient(700, 500)).save(plain)
    for path in (pyramid, plain):
        with Slide(path, mpp=0.25) as slide:
            region = slide.read(690, 490, (20, 20), (20, 20))
            assert (region[10:] == 255).all()
            assert (region[:, 10:] == 255).all()
            np.testing.assert_array_equal(region[:10, :10], gradient(700, 500)[490:, 690:])
            assert (slide.read(-20, -20, (10, 10), (10, 10)) == 255).all()


def test_a_plain_image_is_read_by_pillow(tmp_path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient(300, 200)).save(path)
    with Slide(path, mpp=1.0) as slide:
        assert (slide.reader, slide.size, slide.mpp) == ("pillow", (300, 200), 1.0)
        small = slide.read(0, 0, (300, 200), (150, 100))
        assert small.shape == (100, 150, 3)


@pytest.mark.parametrize("region", [1 << 26, 60_000])
def test_a_thumbnail_is_the_slide_made_small_at_once_or_in_bands(
    pyramid, region, monkeypatch
) -> None:
    monkeypatch.setattr(wsi, "REGION_PIXELS", region)
    with Slide(pyramid) as slide:
        picture, factor = slide.thumbnail(100)
        assert picture.shape == (71, 100, 3)
        assert factor == pytest.approx(7.0)
        expected = np.asarray(
            Image.fromarray(gradient(700, 500)).resize((100, 71), Image.Resampling.BOX)
        )
        assert np.abs(picture.astype(int) - expected)[:, :30].mean() < 12
        full, factor = slide.thumbnail(5000)
        assert (full.shape, factor) == ((500, 700, 3), 1.0)


def quarters(width: int, height: int) -> np.ndarray:
    """Red, green, blue and yellow, far enough from each other that no averaging makes one of
    another.
    """
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = (
        (220, 30, 20),
        (30, 200, 40),
    )
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = (
        (20, 40, 230),
        (210, 210, 50),
    )
    return picture


@pytest.mark.parametrize("ending", ["tiff", "png", "jpg", "bmp"])
def test_colours_stay_what_they_are_at_every_level(tmp_path, ending) -> None:
    path, picture = tmp_path / f"a.{ending}", quarters(600, 400)
    if ending == "tiff":
        write_pyramid(path, picture)
    else:
        Image.fromarray(picture).save(path, **({"quality": 98} if ending == "jpg" else {}))
    with Slide(path, mpp=0.5) as slide:
        for factor in (1, 2, 8):
            size = 600 // factor, 400 // factor
            pixels = slide.read(0, 0, (600, 400), size).astype(int)
            inner = np.zeros(pixels.shape[:2], bool)
            inner[8:-8, 8:-8] = True
            inner[size[1] // 2 - 8 : size[1] // 2 + 8] = inner[
                :, size[0] // 2 - 8 : size[0] // 2 + 8
            ] = False
            assert np.abs(pixels - quarters(*size))[inner].max() <= 8, factor
        thumbnail, _ = slide.thumbnail(60)
        assert np.abs(thumbnail[5:15, 5:25].astype(int) - (220, 30, 20)).max() <= 8
        out = np.empty((4, 6, 3), np.uint8)
        assert slide.read(0, 300, (6, 4), (6, 4), out=out) is out
        assert np.abs(out.astype(int) - (20, 40, 230)).max() <= 8


def test_an_image_with_alpha_or_grey_is_a_slide_in_colours(tmp_path) -> None:
    Image.fromarray(quarters(40, 20)).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(quarters(40, 20)[..., 0]).save(tmp_path / "grey.png")
    with Slide(tmp_path / "palette.png") as slide:
        assert (
            np.abs(slide.read(0, 0, (40, 20), (40, 20)).astype(int) - quarters(40, 20)).mean() < 30
        )
    with Slide(tmp_path / "grey.png") as slide:
        np.testing.assert_array_equal(
            slide.read(0, 0, (40, 20), (40, 20)), quarters(40, 20)[..., :1].repeat(3, 2)
        )


class TestPlainImages:
    def test_transparent_ground_is_white(self, tmp_path) -> None:
        """Whatever colour is hidden below it."""
        picture = np.dstack([quarters(40, 20), np.full((20, 40), 255, np.uint8)])
        picture[:, :10] = 0
        Image.fromarray(picture).save(tmp_path / "a.png")
        with Slide(tmp_path / "a.png") as slide:
            pixels = slide.read(0, 0, (40, 20), (40, 20))
        assert (pixels[:, :10] == 255).all()
        np.testing.assert_array_equal(pixels[:, 10:], quarters(40, 20)[:, 10:])

    def test_grey_of_16_bits_is_scaled_not_clipped(self, tmp_path) -> None:
        values = np.linspace(0, 65535, 800).reshape(20, 40).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "a.png")
        with Slide(tmp_path / "a.png") as slide:
            pixels = slide.read(0, 0, (40, 20), (40, 20))
        np.testing.assert_allclose(pixels[..., 0], values / 257, atol=1)

    def test_postscript_with_the_name_of_a_picture_starts_no_program(
        self, tmp_path, monkeypatch
    ) -> None:
        started = []
        monkeypatch.setattr("subprocess.Popen", lambda *a, **k: started.append(a))
        monkeypatch.setattr("subprocess.check_call", lambda *a, **k: started.append(a))
        text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
        (tmp_path / "a.png").write_text(text)
        with pytest.raises(InputError, match="neither OpenSlide nor Pillow"):
            Slide(tmp_path / "a.png").size  # noqa: B018
        assert started == []


def test_the_corner_of_the_scan_is_what_the_file_names(pyramid) -> None:
    with Slide(pyramid) as slide:
        assert slide.origin == (0, 0)
        bounds = {"openslide.bounds-x": "1024", "openslide.bounds-y": "768"}
        slide.__dict__["_open"] = SimpleNamespace(properties=bounds, close=lambda: None)
        assert slide.origin == (1024, 768)


class TestMicrometres:
    def test_they_are_the_mean_of_both_sides(self, tmp_path) -> None:
        import tifffile

        tifffile.imwrite(
            tmp_path / "a.tiff",
            gradient(256, 256),
            tile=(128, 128),
            photometric="rgb",
            metadata=None,
            resolution=(1e4 / 0.4, 1e4 / 0.6),
            resolutionunit="CENTIMETER",
        )
        with Slide(tmp_path / "a.tiff", mpp=9.0) as slide:
            assert slide.mpp == pytest.approx(0.5, rel=1e-4)
            assert slide.scale(2.0) == pytest.approx(4.0, rel=1e-4)

    def test_a_file_without_them_asks_for_mpp_and_uses_it(self, tmp_path) -> None:
        path = tmp_path / "a.png"
        Image.fromarray(gradient(300, 200)).save(path)
        assert Slide(path).mpp is None
        with pytest.raises(InputError, match="--mpp"):
            Slide(path).scale(0.5)
        assert Slide(path, mpp=0.25).scale(0.5) == 2.0

    def test_what_the_file_says_comes_first_unless_the_user_says_it(self, pyramid) -> None:
        assert Slide(pyramid, mpp=9.0).mpp == pytest.approx(0.25, rel=1e-4)
        by_hand = Slide(pyramid, mpp=0.125, mpp_first=True)
        with opened() as account:
            assert by_hand.scale(0.5) == 4.0
        assert "a.tiff: 0.25, taken 0.125" in account.lines()[0]
        assert pickle.loads(pickle.dumps(by_hand)).mpp == 0.125

    @pytest.mark.parametrize("stated", [1000.0, 352.8, 84.67, 1e-4])
    def test_what_cannot_be_right_is_not_used(self, tmp_path, stated: float) -> None:
        write_pyramid(tmp_path / "a.tiff", gradient(256, 256), mpp=stated)
        with pytest.raises(InputError, match=r"cannot be right; say them with --mpp"):
            Slide(tmp_path / "a.tiff").scale(0.5)
        with opened() as account:
            assert Slide(tmp_path / "a.tiff", mpp=0.25).scale(0.5) == 2.0
        assert "other micrometres per pixel than --mpp" in account.lines()[0]

    def test_a_slide_coarser_than_asked_for_is_refused(self, pyramid) -> None:
        assert Slide(pyramid).scale(0.24) == pytest.approx(0.96, rel=1e-3)
        with pytest.raises(InputError, match=r"coarser than --tile-mpp 0\.1"):
            Slide(pyramid).scale(0.1)


class TestDamage:
    def test_each_mistake_has_one_line(self, tmp_path, pyramid) -> None:
        (tmp_path / "text.svs").write_text("this is no slide")
        (tmp_path / "empty.tiff").write_bytes(b"")
        reasons = {
            "text.svs": "neither OpenSlide nor Pillow",
            "empty.tiff": "neither",
            "no.svs": "no such",
        }
        for name, message in reasons.items():
            with pytest.raises(InputError, match=message) as caught:
                Slide(tmp_path / name).size  # noqa: B018
            assert "\n" not in str(caught.value)

    def test_a_slide_cut_short_fails_when_read_and_no_worse(self, tmp_path, pyramid) -> None:
        cut = tmp_path / "cut.tiff"
        content = bytearray(pyramid.read_bytes())
        content[1000:60_000] = bytes(59_000)
        cut.write_bytes(bytes(content))
        with pytest.raises(InputError, match="cut"):
            Slide(cut).read(0, 0, (700, 500), (700, 500))

    def test_a_picture_that_unpacks_to_too_much_is_refused_before_it_does(
        self, tmp_path, monkeypatch
    ) -> None:
        path = tmp_path / "a.png"
        Image.fromarray(gradient(300, 200)).save(path)
        monkeypatch.setattr(wsi, "IMAGE_PIXELS", 1000)
        with pytest.raises(InputError, match="300 x 200 pixels are too many"):
            Slide(path).size  # noqa: B018

    def test_a_region_without_a_level_for_it_is_refused(self, pyramid, monkeypatch) -> None:
        monkeypatch.setattr(wsi, "REGION_PIXELS", 1000)
        with pytest.raises(InputError, match="no level small enough"):
            Slide(pyramid).read(0, 0, (300, 300), (300, 300))


def test_a_slide_travels_closed_and_threads_share_it(pyramid) -> None:
    slide = Slide(pyramid, mpp=1.0)
    assert slide.size == (700, 500)
    copy = pickle.loads(pickle.dumps(slide))
    assert "_open" not in copy.__dict__
    places = [(x, y) for x in range(0, 600, 50) for y in range(0, 400, 50)]
    with ThreadPoolExecutor(4) as pool:
        regions = list(pool.map(lambda p: copy.read(*p, (50, 50), (50, 50)), places))
    for (x, y), region in zip(places, regions):
        np.testing.assert_array_equal(region, gradient(700, 500)[y : y + 50, x : x + 50])
    slide.close()
    assert slide.size == (700, 500)


def test_lists_go_into_folders_and_leave_out_links_that_lead_out(tmp_path, pyramid) -> None:
    home = tmp_path / "home"
    (home / "b").mkdir(parents=True)
    for name in ("b/2.tiff", "1.PNG", ".hidden.tiff", "notes.txt"):
        (home / name).write_bytes(b"x")
    (home / "out.tiff").symlink_to(pyramid)
    with opened() as account:
        assert list_slides(home) == [str(home / "1.PNG"), str(home / "b" / "2.tiff")]
    (line,) = account.lines()
    for name in ("hidden names (.hidden.tiff)", "other kinds (notes.txt)", "lead out", "out.tiff"):
        assert name in line
    with opened(("links",)):
        assert str(home / "out.tiff") in list_slides(home)


def test_the_generated_slides_are_the_same_each_time_and_differ(tmp_path) -> None:
    first, again = (write_sample_slides(tmp_path / name, slides=4, side=256) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    labels = (first / "labels.csv").read_text().splitlines()
    assert labels[0] == "slide,patient,label"
    assert [line.split(",")[2] for line in labels[1:]] == ["normal", "normal", "tumour", "tumour"]
    plain, dense = (
        draw_slide(np.random.default_rng(1), 256, tumour).astype(int) for tumour in (False, True)
    )
    assert (dense.sum(2) < 450).mean() > 1.3 * (plain.sum(2) < 450).mean()


class TestRealSlides:
    def test_two_aperio_slides_are_read(self, real_data) -> None:
        folder = real_data / "wsi" / "slides"
        with Slide(folder / "CMU-1-Small-Region.svs") as slide:
            assert (slide.size, slide.mpp, slide.power) == ((2220, 2967), 0.499, "20")
        with (
            Slide(folder / "tcga-cr-7395-01a-01-ts1.svs") as slide,
            pytest.raises(InputError, match="--mpp"),
        ):
            slide.scale(0.5)

    def test_openslide_refuses_and_pillow_reads(self, real_data) -> None:
        with Slide(real_data / "wsi" / "slides" / "kidney-48-5.tif", mpp=8.0) as slide:
            assert (slide.reader, slide.size) == ("pillow", (1493, 901))

    def test_broken_ones_say_so(self, real_data) -> None:
        for name in ("broken.svs", "openslide_fixtures/unopenable.tiff"):
            with pytest.raises(InputError, match=name.split("/")[-1]):
                Slide(real_data / "wsi" / "slides" / name).size  # noqa: B018

    def test_two_files_of_a_dicom_series_are_one_slide(self, real_data) -> None:
        with opened() as account:
            files = list_slides(real_data / "wsi" / "slides" / "openslide_fixtures")
        assert any("further files of DICOM series" in line for line in account.lines())
        assert [path for path in files if path.endswith(".dcm")] == [
            str(real_data / "wsi" / "slides" / "openslide_fixtures" / "boxes_0.dcm")
        ]
        with Slide(next(path for path in files if path.endswith(".dcm"))) as slide:
            assert (slide.reader, slide.mpp) == ("openslide", 0.499)
            assert slide.read(0, 0, slide.size, slide.size).std() > 0
