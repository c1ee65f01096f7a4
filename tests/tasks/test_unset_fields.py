"""Fields of models that nobody has set: they arrive as not set, and what is not a constant arrives as it was."""

import dataclasses
import inspect
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated, Any, Generic, Literal, TypeVar

import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    RootModel,
    Tag,
    computed_field,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from jobrunner.core.errors import InvalidArguments
from jobrunner.tasks.codec import ArgsCodec, ResultCodec

T = TypeVar("T")


class Patch(BaseModel):
    name: str | None = None
    email: str | None = None


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    a: int = 1
    b: int = 2


class Box(BaseModel, Generic[T]):
    item: T
    note: str = ""


class Patches(RootModel[list[Patch]]): ...


class OnePatch(RootModel[Patch]): ...


class Aliased(BaseModel):
    user_id: int = Field(default=1, alias="userId")
    shown: int = Field(
        default=1, validation_alias=AliasChoices("in", "input"), serialization_alias="out"
    )


class Open(BaseModel):
    __pydantic_extra__: dict[str, Patch]
    model_config = ConfigDict(extra="allow")
    a: int = 1
    b: int = 2


class Computed(BaseModel):
    a: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.a


class Tree(BaseModel):
    name: str = ""
    children: "list[Tree]" = []


class Partial(TypedDict, total=False):
    patch: Patch
    number: int


@dataclasses.dataclass
class Data:
    patch: Patch = dataclasses.field(default_factory=Patch)
    number: int = 3


@pydantic.dataclasses.dataclass
class CheckedData:
    patch: Patch
    number: int = 3


class Nested(BaseModel):
    inner: Patch = Patch()
    items: list[Patch] = []
    number: int = 1
    since: datetime = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class AliasedCat(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    kind: Literal["cat"] = Field(default="cat", alias="petType")
    lives: int = 9


class AliasedDog(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    kind: Literal["dog"] = Field(default="dog", alias="petType")
    lives: int = 1


class Left(BaseModel):
    left: int = 1


class Right(BaseModel):
    right: int = 1


class Order(BaseModel):
    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    day: date = Field(default_factory=lambda: date(2026, 11, 28))
    note: str | None = None


class Checked(BaseModel):
    model_config = ConfigDict(validate_default=True)
    number: int = "5"  # type: ignore[assignment]


class FilledIn(BaseModel):
    a: int = 1
    b: int = 2

    @model_validator(mode="before")
    @classmethod
    def fill(cls, given: Any) -> Any:
        return {"a": 7, **given} if isinstance(given, dict) else given


class Sparse(BaseModel):
    """Its JSON has no null, as many an API wants it."""

    a: int | None = None
    b: int | None = None

    @model_serializer(mode="wrap")
    def without_none(self, write: Any) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}


class LeavesOut(BaseModel):
    a: int | None = Field(default=None, exclude_if=lambda value: value is None)


def codec_for(annotation: Any) -> ArgsCodec:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return ArgsCodec("note", [inspect.Parameter("detail", kind, annotation=annotation)])


def sent(annotation: Any, value: object) -> Any:
    """Return what a job is given for an argument, after having checked that a result makes the same way."""
    args, result = codec_for(annotation), ResultCodec("note", annotation)
    text = args.encode((value,), {})
    stored = result.encode(value)
    assert text == f'{{"detail":{stored or "null"}}}'
    assert fields_set(result.decode(stored)) == fields_set(args.decode(text)["detail"])
    return args.decode(text)["detail"]


def fields_set(value: object) -> Any:
    """Return which fields of the models in a value are set, in the value's own shape."""
    if isinstance(value, RootModel):
        return fields_set(value.root)
    if isinstance(value, BaseModel):
        parts = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return value.model_fields_set, {name: fields_set(part) for name, part in parts.items()}
    if dataclasses.is_dataclass(value):
        return {f.name: fields_set(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: fields_set(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, deque)):
        return [fields_set(part) for part in value]
    return None


# what was not set arrives as not set, wherever it is


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Patch, Patch()),
        (Patch, Patch(name="Ann")),
        (Patch, Patch(name="Ann", email=None)),
        (Patch | None, Patch(name=None)),
        (Patch | int, Patch(email="a")),
        (list[Patch], [Patch(), Patch(name=None), Patch(email="a")]),
        (list[list[Patch]], [[], [Patch(), Patch(name=None)]]),
        (Sequence[Patch], [Patch(email=None)]),
        (deque[Patch], deque([Patch(email=None)])),
        (tuple[Patch, ...], (Patch(), Patch(name=None))),
        (tuple[int, Patch], (1, Patch(name="Ann"))),
        (dict[str, Patch], {"a": Patch(), "b": Patch(email=None)}),
        (dict[int, Patch], {1: Patch(), 2: Patch(email=None)}),
        (Mapping[str, list[Patch]], {"a": [Patch(email=None)]}),
        (Box[Patch], Box[Patch](item=Patch(name="Ann"))),
        (Box[int], Box(item=1)),
        (Patches, Patches([Patch(), Patch(name=None)])),
        (OnePatch, OnePatch(Patch(name=None))),
        (Aliased, Aliased()),
        (Aliased, Aliased(userId=1)),
        (Open, Open(b=2, more=Patch(name=None))),  # type: ignore[call-arg]
        (Computed, Computed()),
        (Tree, Tree(children=[Tree(name="a", children=[Tree()]), Tree()])),
        (Partial, {"patch": Patch(name=None)}),
        (Partial, {}),
        (Data, Data(Patch(name=None))),
        (CheckedData, CheckedData(Patch(name=None))),
        (Nested, Nested()),
        (Nested, Nested(inner=Patch(email="a"), items=[Patch()])),
        (list[Nested | None], [Nested(number=1), None]),
        (Patch, Patch.model_construct(name="Ann")),
        (Sparse, Sparse(b=1)),
        (LeavesOut, LeavesOut()),
    ],
)  # fmt: skip
def test_unset_field_arrives_as_not_set(annotation: Any, value: object) -> None:
    back = sent(annotation, value)
    assert back == value
    assert fields_set(back) == fields_set(value)


def test_patch_body_is_stored_as_it_was_sent() -> None:
    assert codec_for(Patch).encode((Patch(name="Ann"),), {}) == '{"detail":{"name":"Ann"}}'
    assert codec_for(Patch).encode((Patch(name=None),), {}) == '{"detail":{"name":null}}'


def test_argument_is_not_changed_by_being_stored() -> None:
    order = Order(note=None)
    before = order.model_copy(deep=True)
    sent(Order, order)
    assert order == before
    assert order.model_fields_set == {"note"}


# what is not a constant is written


def test_field_with_a_factory_keeps_its_value_and_arrives_as_set() -> None:
    codec, order = codec_for(Order), Order()
    stored = codec.encode((order,), {})
    first, second = codec.decode(stored)["detail"], codec.decode(stored)["detail"]
    assert first == second == order
    assert first.model_fields_set == {"id", "day"}


def test_field_with_a_factory_keeps_its_value_through_a_merge() -> None:
    codec, order = codec_for(Order), Order()
    merged = codec.merge(codec.encode((order,), {}), {})
    assert codec.decode(merged)["detail"] == order
    assert codec.decode(merged)["detail"].model_fields_set == {"id", "day"}


def changed(change: Any) -> Nested:
    """Return a model that was changed without any field of it being set."""
    nested = Nested()
    change(nested)
    assert nested.model_fields_set == set()
    return nested


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda nested: nested.items.append(Patch(name="a")), "items"),
        (lambda nested: setattr(nested.inner, "name", None), "inner"),
        (lambda nested: nested.__dict__.update(number=True), "number"),
        (lambda nested: nested.__dict__.update(number=1.0), "number"),
        (
            lambda nested: nested.__dict__.update(
                since=datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))
            ),
            "since",
        ),
    ],
    ids=["appended to", "set in a part", "True for 1", "1.0 for 1", "another offset"],
)
def test_unset_field_that_is_no_longer_its_default_is_written(change: Any, name: str) -> None:
    back = sent(Nested, changed(change))
    assert back.model_fields_set == {name}
    assert back == changed(change)


def test_unset_field_whose_default_another_validation_would_change_is_written() -> None:
    back = sent(Checked, Checked())
    assert back.number == 5
    assert back.model_fields_set == {"number"}


def test_unset_field_that_its_class_would_fill_with_something_else_is_written() -> None:
    model = FilledIn.model_construct(b=2)
    assert codec_for(FilledIn).encode((model,), {}) == '{"detail":{"a":1,"b":2}}'
    assert sent(FilledIn, model).a == 1


def test_dataclass_is_written_whole() -> None:
    assert codec_for(Data).encode((Data(),), {}) == '{"detail":{"patch":{},"number":3}}'


def test_models_in_a_set_arrive_whole() -> None:
    back = sent(set[Frozen], {Frozen(a=5)})
    assert back == {Frozen(a=5)}
    assert {item.b for item in back} == {2}


def test_mapping_with_the_key_that_pydantic_takes_for_all_is_written_whole() -> None:
    back = sent(dict[str, Patch], {"__all__": Patch(), "b": Patch(email=None)})
    assert "email" in back["b"].model_fields_set


texts = st.none() | st.text(max_size=3)
patches = st.fixed_dictionaries({}, optional={"name": texts, "email": texts}).map(
    Patch.model_validate
)
nested = st.fixed_dictionaries(
    {},
    optional={
        "inner": patches,
        "items": st.lists(patches, max_size=2),
        "number": st.integers(0, 2),
        "since": st.datetimes(timezones=st.just(UTC)),
    },
).map(Nested.model_validate)
lists = st.lists(st.none() | st.integers() | patches | nested, max_size=3)


@given(st.dictionaries(st.text(max_size=2), lists, max_size=3), st.booleans())
def test_anything_arrives_equal_and_with_what_was_set(
    value: dict[str, list[Any]], change: bool
) -> None:
    for item in (item for items in value.values() for item in items):
        if change and isinstance(item, Nested):
            item.items.append(Patch(name=None))
    back = sent(dict[str, list[Nested | Patch | int | None]], value)
    assert back == value
    for ours, theirs in zip(value.values(), back.values(), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert type(a) is type(b)
            assert not isinstance(a, BaseModel) or a.model_fields_set <= b.model_fields_set


def test_plain_data_beside_a_model_is_not_looked_through() -> None:
    looked_at: list[object] = []

    class Watched(dict[str, object]):
        def items(self) -> Any:
            looked_at.append(self)
            return super().items()

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    codec = ArgsCodec(
        "note",
        [
            inspect.Parameter("patch", kind, annotation=Patch),
            inspect.Parameter("detail", kind, annotation=Any),
        ],
    )
    assert codec.encode((Patch(name="a"), Watched(a=1)), {}) == (
        '{"patch":{"name":"a"},"detail":{"a":1}}'
    )
    assert looked_at == []


# discriminators


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[Cat | Dog, Field(discriminator="kind")],
        Annotated[Dog | Cat, Field(discriminator="kind")],
        Annotated[AliasedCat | AliasedDog, Field(discriminator="kind")],
        Cat | Dog,
        Dog | Cat | None,
        list[Annotated[Cat | Dog, Field(discriminator="kind")]],
    ],
)
def test_discriminator_is_written_and_what_else_is_unset_is_not(annotation: Any) -> None:
    aliased = "Aliased" in str(annotation)
    pets: list[Any] = [AliasedCat(), AliasedDog()] if aliased else [Cat(), Dog()]
    for pet in pets:
        is_list = "list" in str(annotation)
        back = sent(annotation, [pet] if is_list else pet)
        back = back[0] if is_list else back
        assert type(back) is type(pet)
        assert back.model_fields_set == {"kind"}


@pytest.mark.parametrize(
    "annotation",
    [
        Left | Right,
        Annotated[
            Annotated[Left, Tag("left")] | Annotated[Right, Tag("right")],
            Discriminator(
                lambda v: "right" if isinstance(v, Right) or (isinstance(v, dict) and "right" in v) else "left"
            ),
        ],
    ],
)  # fmt: skip
def test_model_that_is_known_by_its_fields_alone_is_written_with_them(annotation: Any) -> None:
    assert type(sent(annotation, Right())) is Right
    assert type(sent(annotation, Left())) is Left


# state that ``==`` does not see


def refusal(annotation: Any, value: object) -> str:
    with pytest.raises(InvalidArguments) as caught:
        codec_for(annotation).encode((value,), {})
    return str(caught.value).removeprefix("note: ")


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (Sparse, Sparse(a=None), "detail.a"),
        (list[Sparse], [Sparse(), Sparse(b=None)], "detail[1].b"),
        (LeavesOut, LeavesOut(a=None), "detail.a"),
    ],
)
def test_set_field_that_would_arrive_as_not_set_is_refused(
    annotation: Any, value: object, path: str
) -> None:
    assert refusal(annotation, value).startswith(f"{path}: it was set and would come back as not")


def test_field_that_a_dataclass_does_not_compare_is_kept() -> None:
    @dataclasses.dataclass
    class Quiet:
        number: int
        note: str = dataclasses.field(default="", compare=False)

    assert sent(Quiet, Quiet(1, "kept")).note == "kept"


def test_field_that_a_dataclass_neither_compares_nor_takes_back_as_it_was_is_refused() -> None:
    @dataclasses.dataclass
    class Shortened:
        note: Annotated[str, Field(max_length=2)] = dataclasses.field(compare=False)

        def __post_init__(self) -> None:
            self.note += "!"

    said = refusal(Shortened, Shortened("a"))
    assert said.startswith("detail.note: a str would come back different; validators run again")


def test_field_that_a_dataclass_does_not_take_and_does_not_compare_is_its_own_matter() -> None:
    @pydantic.dataclasses.dataclass
    class Cached:
        number: int
        cache: dict[str, int] = dataclasses.field(default_factory=dict, init=False, compare=False)

    cached = Cached(1)
    cached.cache["a"] = 1
    assert sent(Cached, cached).cache == {}


def test_field_that_a_dataclass_does_not_take_but_compares_is_refused_if_it_was_changed() -> None:
    @pydantic.dataclasses.dataclass
    class Counted:
        count: int = dataclasses.field(default=0, init=False)

    counted = Counted()
    assert sent(Counted, counted) == counted
    counted.count = 3
    assert refusal(Counted, counted).startswith("detail.count: an int would come back different")


def test_model_whose_equality_is_that_of_an_id_is_compared_by_all_its_fields() -> None:
    class Entity(BaseModel):
        id: int
        tags: Annotated[list[str], Field()] = []

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Entity) and other.id == self.id

        __hash__ = None  # type: ignore[assignment]

        @model_validator(mode="after")
        def tag(self) -> "Entity":
            self.tags = [*self.tags, "checked"]
            return self

    assert refusal(Entity, Entity(id=1)).startswith("detail.tags: a list would come back different")


def test_private_attributes_are_the_models_own_matter() -> None:
    class Private(BaseModel):
        a: int = 1
        _seen: int = PrivateAttr(default=0)

    private = Private()
    private._seen = 4
    assert sent(Private, private)._seen == 0


# what cannot be stored at all


def test_model_that_holds_itself_is_refused() -> None:
    tree = Tree()
    tree.children = [tree, tree]
    assert refusal(Tree, tree) == "it holds itself, which JSON cannot say"


def test_model_nested_too_deep_is_refused() -> None:
    tree = Tree()
    for _ in range(400):
        tree = Tree(children=[tree])
    assert refusal(Tree, tree) == "nested too deep to be stored as JSON"
