"""Validators run again at each attempt: what would be another value then is refused, with what to write."""

import inspect
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import pydantic.dataclasses
import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    FutureDate,
    FutureDatetime,
    PastDate,
    PastDatetime,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    field_serializer,
    field_validator,
)
from typing_extensions import TypedDict

from jobrunner import JobRunner
from jobrunner.core.errors import InvalidArguments, InvalidTask, ResultNotStored
from jobrunner.tasks.codec import ArgsCodec, ResultCodec


class Due(BaseModel):
    title: str
    due: FutureDatetime


class Dues(RootModel[dict[str, Due]]): ...


class DueDict(TypedDict, total=False):
    born: PastDate


class DueTuple(NamedTuple):
    due: FutureDate


@pydantic.dataclasses.dataclass
class DueData:
    at: PastDatetime | None = None


class Chain(BaseModel):
    before: "Chain | None" = None
    due: FutureDate | None = None


class Login(BaseModel):
    user: str
    password: SecretStr


class MaybeLogin(BaseModel):
    user: str
    password: SecretStr | None = None


class SparseLogin(TypedDict, total=False):
    user: str
    password: SecretStr


class Shown(BaseModel):
    password: SecretStr

    @field_serializer("password", when_used="json")
    def show(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Hidden(BaseModel):
    user: str
    connection: int = Field(exclude=True)


class MaybeHidden(BaseModel):
    user: str
    connection: int = Field(default=0, exclude=True)


class Hashed(BaseModel):
    phrase: str

    @field_validator("phrase")
    @classmethod
    def hash(cls, phrase: str) -> str:
        return f"#{phrase}"


def codec_for(annotation: Any) -> ArgsCodec:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return ArgsCodec("note", [inspect.Parameter("detail", kind, annotation=annotation)])


def fault_of(annotation: Any) -> str:
    with pytest.raises(InvalidTask) as caught:
        codec_for(annotation)
    return str(caught.value).removeprefix("note: ")


def refusal(annotation: Any, value: object) -> str:
    with pytest.raises(InvalidArguments) as caught:
        codec_for(annotation).encode((value,), {})
    return str(caught.value).removeprefix("note: ")


def sent(annotation: Any, value: object) -> Any:
    codec = codec_for(annotation)
    return codec.decode(codec.encode((value,), {}))["detail"]


# the clock


@pytest.mark.parametrize(
    ("annotation", "where", "kind", "instead"),
    [
        (FutureDatetime, "", "FutureDatetime", "datetime"),
        (PastDatetime | None, "", "PastDatetime", "datetime"),
        (FutureDate, "", "FutureDate", "date"),
        (Annotated[PastDate, Field(description="of birth")], "", "PastDate", "date"),
        (int | FutureDatetime, "", "FutureDatetime", "datetime"),
        (list[PastDate], " detail[]:", "PastDate", "date"),
        (set[PastDate] | None, " detail[]:", "PastDate", "date"),
        (dict[str, tuple[int, FutureDate]], " detail[][]:", "FutureDate", "date"),
        (Due, " detail.due:", "FutureDatetime", "datetime"),
        (list[Due | int], " detail[].due:", "FutureDatetime", "datetime"),
        (Dues, " detail[].due:", "FutureDatetime", "datetime"),
        (DueDict, " detail.born:", "PastDate", "date"),
        (DueTuple, " detail.due:", "FutureDate", "date"),
        (DueData, " detail.at:", "PastDatetime", "datetime"),
        (Chain, " detail.before.due:", "FutureDate", "date"),
    ],
)
def test_declare_a_parameter_whose_validator_asks_the_clock_is_refused(
    annotation: Any, where: str, kind: str, instead: str
) -> None:
    said = fault_of(annotation)
    assert said.startswith(f"parameter 'detail':{where} {kind} asks the clock")
    assert f"annotate it as {instead} " in said


@pytest.mark.parametrize("annotation", [FutureDatetime, list[Due]])
def test_declare_a_result_whose_validator_asks_the_clock_is_refused(annotation: Any) -> None:
    with pytest.raises(InvalidTask, match=r"note: its result: .*FutureDatetime asks the clock"):
        ResultCodec("note", annotation)


def test_declare_a_task_whose_validator_asks_the_clock_is_refused_at_its_line() -> None:
    jobs = JobRunner("sqlite:///unused.db")

    async def remind(due: Due) -> None: ...

    with pytest.raises(InvalidTask, match=r"remind: parameter 'due': due\.due: FutureDatetime"):
        jobs.task(remind)


def test_declare_a_time_that_is_checked_by_a_constant_is_taken() -> None:
    recent = Annotated[date, Field(gt=date(2020, 1, 1))]
    assert sent(recent, date(2026, 1, 1)) == date(2026, 1, 1)


# secrets


@pytest.mark.parametrize(
    ("annotation", "where"),
    [
        (SecretStr, ""),
        (SecretBytes | None, ""),
        (Secret[int], ""),
        (Annotated[SecretStr, Field(min_length=3)], ""),
        (list[SecretStr], " detail[]:"),
        (Login, " detail.password:"),
        (dict[str, Login], " detail[].password:"),
    ],
)
def test_declare_a_secret_is_refused_with_what_to_write(annotation: Any, where: str) -> None:
    said = fault_of(annotation)
    assert said.startswith(f"parameter 'detail':{where} a secret is written as stars")
    assert "pass the name under which the task finds it" in said


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (MaybeLogin, MaybeLogin(user="ada", password=SecretStr("hunter2")), "detail.password"),
        (SparseLogin, {"user": "ada", "password": "hunter2"}, "detail.password"),
        (Login | int, Login(user="ada", password=SecretStr("hunter2")), "detail.password"),
        (Any, SecretStr("hunter2"), "detail"),
        (dict[str, Any], {"a": [SecretStr("hunter2")]}, "detail.a[0]"),
    ],
)
def test_call_with_a_secret_is_refused_without_showing_it(
    annotation: Any, value: object, path: str
) -> None:
    said = refusal(annotation, value)
    assert said.startswith(f"{path}: a secret is written as stars")
    assert "hunter2" not in said


def test_model_whose_secret_is_not_given_is_stored() -> None:
    assert sent(MaybeLogin, MaybeLogin(user="ada")) == MaybeLogin(user="ada")
    assert sent(SparseLogin, {"user": "ada"}) == {"user": "ada"}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Shown, Shown(password=SecretStr("hunter2"))),
        (
            Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value, when_used="json")],
            SecretStr("hunter2"),
        ),
    ],
)
def test_secret_whose_serializer_writes_it_is_stored(annotation: Any, value: object) -> None:
    assert sent(annotation, value) == value


def test_result_that_is_a_secret_is_not_stored_and_told_why() -> None:
    with pytest.raises(ResultNotStored, match="password: a secret is written as stars") as caught:
        ResultCodec("note", Login).encode(Login(user="ada", password=SecretStr("hunter2")))
    assert "hunter2" not in str(caught.value)


# what is not written


@pytest.mark.parametrize(
    ("annotation", "where"),
    [(Hidden, "detail.connection"), (list[Hidden], "detail[].connection")],
)
def test_declare_a_required_field_that_is_not_written_is_refused(
    annotation: Any, where: str
) -> None:
    said = fault_of(annotation)
    assert said.startswith(f"parameter 'detail': {where}: it has exclude=True")
    assert "pass it as a separate parameter" in said


@pytest.mark.parametrize("connection", [0, 5])
def test_call_with_a_field_set_that_is_not_written_is_refused(connection: int) -> None:
    said = refusal(MaybeHidden, MaybeHidden(user="ada", connection=connection))
    assert said.startswith("detail.connection: it has exclude=True")


def test_model_whose_field_that_is_not_written_is_not_set_is_stored() -> None:
    assert sent(MaybeHidden, MaybeHidden(user="ada")).model_fields_set == {"user"}


def test_call_with_one_of_several_types_whose_field_is_not_written_says_why() -> None:
    said = refusal(Hidden | int, Hidden(user="ada", connection=5))
    assert "detail.Hidden.connection: Field required" in said
    assert "what exclude or a serializer of its model leaves out is not stored" in said


# validators that change what they have already changed


def _not_hashed(value: str) -> str:
    if value.startswith("#"):
        raise ValueError("is hashed already")
    return f"#{value}"


def _next_days(days: set[date]) -> set[date]:
    return {*days, max(days) + timedelta(days=1)}


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (Annotated[int, AfterValidator(lambda n: n + 1)], 1, "detail: an int would come back"),
        (Hashed, Hashed(phrase="hunter2"), "detail.phrase: a str would come back"),
        (Annotated[list[int], AfterValidator(lambda v: [*v, 0])], [1], "detail: a list would"),
        (Annotated[set[int], AfterValidator(lambda v: {*v, len(v)})], {9}, "detail: a set would"),
        (list[Annotated[set[date], AfterValidator(_next_days)]], [{date(2026, 1, 1)}], "detail[0]: a set would"),
        (
            Annotated[dict[str, int], AfterValidator(lambda v: {f"{k}_": n for k, n in v.items()})],
            {"a": 1},
            "detail: a dict would come back with other keys",
        ),
        (Annotated[str, AfterValidator(_not_hashed)], "hunter2", "it would not come back from JSON"),
        (
            Annotated[list[str], BeforeValidator(lambda v: v.split(","))],
            "a,b",
            "it would not come back from JSON: AttributeError",
        ),
    ],
)  # fmt: skip
def test_call_whose_validator_is_not_idempotent_is_refused_with_why(
    annotation: Any, value: object, path: str
) -> None:
    said = refusal(annotation, value)
    assert said.startswith(path)
    assert "validators run again on what is stored, at each attempt" in said
    assert "or change the value in the task" in said
    assert "hunter2" not in said


def test_call_whose_validator_leaves_alone_what_it_has_changed_is_stored() -> None:
    stripped = Annotated[str, AfterValidator(str.strip)]
    assert sent(stripped, " ada ") == "ada"


def test_call_whose_serializer_loses_something_does_not_blame_a_validator() -> None:
    class Rounded(BaseModel):
        number: float

        @field_serializer("number")
        def rounded(self, number: float) -> int:
            return round(number)

    said = refusal(Rounded, Rounded(number=1.5))
    assert said == "detail.number: a float would come back different"


def test_validators_run_again_when_the_arguments_are_read() -> None:
    seen: list[datetime] = []
    watched = Annotated[datetime, AfterValidator(lambda at: seen.append(at) or at)]
    codec = codec_for(watched)
    stored = codec.encode((datetime(2026, 1, 1, tzinfo=UTC),), {})
    before = len(seen)
    codec.decode(stored)
    codec.decode(stored)
    assert len(seen) == before + 2
