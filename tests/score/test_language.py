import pyarrow as pa

from curate.score.language import Language


def test_languages_are_named_and_texts_without_letters_have_none(tmp_path):
    texts = [
        "The committee published its report on the state of the rivers yesterday.",
        "Der Ausschuss hat gestern seinen Bericht über den Zustand der Flüsse veröffentlicht.",
        "Le comité a publié hier son rapport sur l'état des rivières de la région.",
        "Komitet opublikował wczoraj swój raport o stanie rzek w całym kraju.",
        "12 % - 34 / 56 !!",
        "",
    ]
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    stage = Language()
    found = stage.load(tmp_path)(table)
    assert found.schema == stage.writes()
    assert found.column("language").to_pylist() == ["en", "de", "fr", "pl", None, None]
    sure = found.column("language_sure").to_pylist()
    assert min(sure[:4]) > 0.9 and sure[4:] == [None, None]


def test_only_the_first_characters_are_read(tmp_path):
    text = "The committee published its report on the state of the rivers yesterday. "
    table = pa.table({"text": pa.array([text + "Der Ausschuss hat gestern seinen Bericht veröffentlicht. " * 50], pa.large_string())})
    assert Language(characters=70).load(tmp_path)(table).column("language").to_pylist() == ["en"]
    assert Language().load(tmp_path)(table).column("language").to_pylist() == ["de"]
