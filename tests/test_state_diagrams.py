"""The page of state machines is the one that the transition tables give."""

from tools.state_diagrams import PAGE, page


def test_the_page_agrees_with_the_transition_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.state_diagrams"
