"""The interface of templates: trees, values, limits, and what hostile templates and data come to."""

from __future__ import annotations

import datetime as dt
from typing import Final

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olm.errors import TemplateError
from olm.template import INVALID, Function, GoList, GoMap, GoStruct, GoType, Limits, parse
from olm.template.nodes import ActionNode, FieldNode, IfNode, ListNode, Node, RangeNode, TextNode
from olm.template.ollama import ollama_functions
from olm.template.values import NO_FIELD

MESSAGE: Final = GoType("api.Message", fields=("Role", "Content"), is_pointer=True)
SMALL: Final = Limits(max_steps=20_000, max_output_bytes=100_000)


def message(role: str, content: str) -> GoStruct:
    return GoStruct(MESSAGE, {"Role": role, "Content": content})


class TestTrees:
    def test_nodes_know_their_place_in_bytes(self) -> None:
        root = parse("é {{ if .A }}\n ö{{ .B }}{{ end }}").root

        branch = root.nodes[1]
        assert isinstance(branch, IfNode)
        action = branch.body.nodes[1]
        assert (branch.pos, action.pos) == ((1, 9), (2, 6))

    def test_nodes_print_as_go_prints_them(self) -> None:
        text = '{{with $x := (print 1 .A.B | len)}}t{{else}}{{template "n\\n" $.C}}{{end}}{{range $i, $e = 3}}{{break}}{{end}}'

        root = parse("{{$i := 0}}{{$e := 0}}" + text).root

        assert str(root).endswith(text)

    def test_else_if_is_an_if_inside_else(self) -> None:
        root = parse("{{if 1}}a{{else if 2}}b{{end}}").root

        outer = root.nodes[0]
        assert isinstance(outer, IfNode)
        assert outer.otherwise is not None
        assert isinstance(outer.otherwise.nodes[0], IfNode)

    def test_definitions_stand_beside_the_main_tree(self) -> None:
        template = parse('a{{define "x"}}b{{end}}{{block "y" .}}c{{end}}')

        assert {name: str(tree) for name, tree in template.templates.items()} == {
            "x": "b",
            "y": "c",
        }
        assert str(template.root) == 'a{{template "y" .}}'

    def test_a_changed_tree_runs_with_the_old_definitions(self) -> None:
        template = parse('{{template "x" .A}}!{{define "x"}}<{{.}}>{{end}}')
        cut = ListNode(nodes=template.root.nodes[:1])

        changed = template.with_root(cut)

        assert changed.execute({"A": 1}) == "<1>"
        assert template.execute({"A": 1}) == "<1>!"

    def test_nodes_can_be_made_by_hand(self) -> None:
        response = ActionNode(pipe=_pipe(FieldNode(ident=("Response",))))

        template = parse("a ").with_root(ListNode(nodes=(TextNode(text="b "), response)))

        assert template.execute({"Response": "c"}) == "b c"


def _pipe(node: Node):
    root = parse("{{.X}}").root
    action = root.nodes[0]
    assert isinstance(action, ActionNode)
    return attrs.evolve(
        action.pipe, commands=(attrs.evolve(action.pipe.commands[0], args=(node,)),)
    )


class TestValues:
    def test_structs_wrap_values_of_any_kind_lazily(self) -> None:
        class Point(msgspec.Struct):
            x: int

        asked: list[str] = []

        class Wrapped(GoStruct):
            __slots__ = ("point",)

            def __init__(self, point: Point) -> None:
                super().__init__(GoType("geo.Point", fields=("X", "Y")), {})
                self.point = point

            def go_field(self, name: str) -> object:
                asked.append(name)
                return self.point.x if name == "X" else NO_FIELD

        text = parse("{{.X}} {{if .X}}yes{{end}}").execute(Wrapped(Point(3)))

        assert text == "3 yes"
        assert asked == ["X", "X"]

    @pytest.mark.parametrize(
        "text",
        ["{{.__class__}}", "{{.values}}", "{{.go_type}}", "{{.go_field}}", "{{.Role.upper}}"],
    )
    def test_python_attributes_are_out_of_reach(self, text: str) -> None:
        with pytest.raises(TemplateError, match="can't evaluate field"):
            parse(text).execute(message("user", "hi"))

    def test_named_maps_and_lists_print_as_their_text_but_are_still_walked(self) -> None:
        arguments = GoType("api.Arguments", text=lambda value: f"<{len(value)}>")
        tools = GoType("api.Tools", text=lambda _: "[tools]")
        data = {"Args": GoMap(arguments, {"b": 1, "a": 2}), "Tools": GoList(tools, ["x"])}

        text = parse(
            "{{.Args}}{{range $k, $v := .Args}}{{$k}}{{$v}}{{end}} {{.Tools}}{{range .Tools}}{{.}}{{end}}"
        ).execute(data)

        assert text == "<2>a2b1 [tools]x"

    def test_a_named_map_says_what_a_missing_key_is(self) -> None:
        scores = GoMap(GoType("map[string]int", zero=0), {"a": 1})

        assert parse("{{.a}}{{.b}}{{index . `c`}}").execute(scores) == "100"

    def test_letters_cut_in_half_and_joined_again_are_whole(self) -> None:
        text = parse("{{slice . 0 1}}{{slice . 1 2}}|{{slice . 0 1}}").execute("é")

        assert text == "é|\ufffd"

    def test_lone_surrogates_of_data_become_replacement_characters(self) -> None:
        assert parse("{{.}}{{len .}}").execute("a\ud800") == "a\ufffd4"

    def test_no_data_is_no_value(self) -> None:
        assert (
            parse("{{.}}{{.A.B}}").execute(None)
            == parse("{{.}}{{.A}}").execute(INVALID)
            == "<no value><no value>"
        )


class TestFunctions:
    def test_functions_of_the_execution_replace_those_of_the_parse(self) -> None:
        template = parse("{{now}}", functions={"now": Function(lambda: "then")})

        assert template.execute(None) == "then"
        assert template.execute(None, functions={"now": Function(lambda: "now")}) == "now"

    def test_even_the_functions_that_skip_arguments_may_be_replaced(self) -> None:
        functions = {"or": Function(lambda *args: len(args), rest="any")}

        assert parse("{{or 1 2 3}}", functions=functions).execute(None) == "3"

    def test_a_function_may_take_the_place_of_one_of_go(self) -> None:
        assert (
            parse("{{len 1}}", functions={"len": Function(lambda _: "long", ("any",))}).execute(
                None
            )
            == "long"
        )

    def test_dates_are_plain_whatever_form_is_asked_for(self) -> None:
        functions = ollama_functions(lambda: dt.date(2026, 3, 1))

        text = parse(
            '{{currentDate}} {{currentDate "02 Jan"}} {{yesterdayDate}}', functions=functions
        ).execute(None)

        assert text == "2026-03-01 2026-03-01 2026-02-28"

    @pytest.mark.parametrize(
        ("types", "choices", "wanted"),
        [
            (["string"], [], "string"),
            (["integer", "null"], [], "number | null"),
            (["array"], [], "any[]"),
            (["object"], [], "Record<string, any>"),
            (["weird"], [], "any"),
            ([], [], "any"),
            (["string"], [["boolean"], ["number"]], "boolean | number"),
        ],
    )
    def test_properties_become_typescript_types(
        self, types: list[str], choices: list[list[str]], wanted: str
    ) -> None:
        kind = GoType("api.ToolProperty", fields=("AnyOf", "Type"))
        any_of = [GoStruct(kind, {"Type": choice}) for choice in choices]
        data = GoStruct(kind, {"Type": types, "AnyOf": any_of})

        assert parse("{{toTypeScriptType .}}", functions=ollama_functions()).execute(data) == wanted

    def test_anything_but_a_property_is_any_in_typescript(self) -> None:
        assert (
            parse("{{toTypeScriptType .}}", functions=ollama_functions()).execute(
                {"Type": ["string"]}
            )
            == "any"
        )

    def test_json_keeps_the_order_that_a_type_gives_and_sorts_maps(self) -> None:
        tool = GoType(
            "api.Tool",
            fields=("Name",),
            json=lambda _: {"type": "function", "name": {"z": 1.0, "a": "<"}},
        )

        text = parse("{{json .T}} {{json .M}}", functions=ollama_functions()).execute(
            {"T": GoStruct(tool, {}), "M": {"z": 1, "a": {"c": None, "b": True}}}
        )

        assert (
            text
            == '{"type":"function","name":{"z":1,"a":"\\u003c"}} {"a":{"b":true,"c":null},"z":1}'
        )

    def test_json_of_what_json_cannot_say_is_empty(self) -> None:
        assert parse("[{{json .}}]", functions=ollama_functions()).execute(float("inf")) == "[]"


class TestLimits:
    def test_an_endless_template_is_stopped_and_its_line_named(self) -> None:
        template = parse("a\n{{range 1000000000}}{{range 1000000000}}{{end}}{{end}}", name="llama")

        with pytest.raises(
            TemplateError,
            match=r'^template: llama:2:\d+: executing "llama" at .* more than 20000 steps',
        ):
            template.execute(None, limits=SMALL)

    def test_time_is_bounded_where_steps_are_cheap(self) -> None:
        with pytest.raises(TemplateError, match="takes longer than 0 s"):
            parse("{{range 1000000000}}{{end}}").execute(None, limits=Limits(max_seconds=0.0))

    def test_templates_that_call_themselves_are_stopped(self) -> None:
        with pytest.raises(
            TemplateError, match=r":1:\d+: .* exceeded maximum template depth \(100\)"
        ):
            parse('{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}').execute(None)

    def test_python_never_runs_out_of_stack(self) -> None:
        deep = (
            '{{define "a"}}'
            + "{{if 1}}" * 90
            + '{{template "a"}}'
            + "{{end}}" * 91
            + '{{template "a"}}'
        )

        with pytest.raises(TemplateError, match="nested too deeply"):
            parse(deep).execute(None)

    def test_output_is_bounded(self) -> None:
        with pytest.raises(TemplateError, match="output is longer than 100000 bytes"):
            parse("{{range 5000}}{{$}}{{end}}").execute("x" * 1000, limits=SMALL)

    def test_output_is_bounded_without_any_loop(self) -> None:
        with pytest.raises(TemplateError, match="output is longer than 10 bytes"):
            parse("{{.}}é").execute("x" * 9, limits=Limits(max_output_bytes=10))

    def test_texts_that_double_are_stopped(self) -> None:
        text = '{{$x := "ab"}}{{range 100}}{{$x = print $x $x}}{{end}}{{$x}}'

        with pytest.raises(
            TemplateError, match="error calling print: text is longer than 100000 bytes"
        ):
            parse(text).execute(None, limits=SMALL)

    @pytest.mark.parametrize("text", ["print {0}", "println {0}", 'printf "{1}" {0}', "html {0}"])
    def test_a_text_repeated_many_times_is_refused_before_it_is_made(self, text: str) -> None:
        call = text.format(" ".join(["$"] * 1000), "%s" * 1000)

        with pytest.raises(TemplateError, match="text is longer than 100000 bytes"):
            parse(f"{{{{{call}}}}}").execute("x" * 900, limits=SMALL)

    def test_a_text_that_grows_by_its_escapes_is_refused(self) -> None:
        with pytest.raises(TemplateError, match="text is longer than 100000 bytes"):
            parse("{{len (js .)}}").execute("<" * 50_000, limits=SMALL)

    def test_long_texts_cost_steps_wherever_they_go(self) -> None:
        with pytest.raises(TemplateError, match="more than 20000 steps"):
            parse("{{range 100}}{{if eq (len $) 1}}{{end}}{{end}}").execute(
                "x" * 50_000, limits=SMALL
            )

    @pytest.mark.parametrize(
        "form", ["%10000000d", "%.9999999f", "%-9999999d|", "%*d", "%[1]*[1]d"]
    )
    def test_huge_widths_are_refused(self, form: str) -> None:
        with pytest.raises(TemplateError, match="text is longer than 100000 bytes"):
            parse(f'{{{{printf "{form}" 900000 1}}}}').execute(None, limits=SMALL)

    def test_a_width_counts_for_every_element(self) -> None:
        with pytest.raises(TemplateError, match="text is longer than"):
            parse('{{printf "%500d" .}}').execute([list(range(20)), {"a": 1}] * 10, limits=SMALL)

    @pytest.mark.parametrize(
        "text",
        [
            "{{" + "(" * 500 + "1" + ")" * 500 + "}}",
            "{{if 1}}" * 500 + "{{end}}" * 500,
            "{{if 1}}" + "{{else if 1}}" * 500 + "{{end}}",
        ],
    )
    def test_deep_templates_are_refused(self, text: str) -> None:
        with pytest.raises(TemplateError, match="template: :1: max expression depth exceeded"):
            parse(text)

    def test_long_templates_are_refused(self) -> None:
        with pytest.raises(TemplateError, match="longer than 10 characters"):
            parse("x" * 11, max_chars=10)

    def test_deep_data_is_refused(self) -> None:
        deep: object = 1
        for _ in range(5000):
            deep = [deep]

        with pytest.raises(TemplateError, match="nested too deeply"):
            parse("{{.}}").execute(deep)

    def test_one_line_of_any_length_costs_no_more_than_many(self) -> None:
        text = "é{{.A}}" * 4_000

        assert len(parse(text).root.nodes) == 8_000


_PIECES: Final = st.sampled_from(
    [
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        "\n",
        "if ",
        "range ",
        "$x",
        " := ",
        "end",
        "else",
        "define ",
        '"a"',
        ".A",
        ".",
        "(",
        ")",
        "|",
        "1",
        "é",
        "'",
        '"',
        "`",
        "/*",
        "*/",
        "print",
        "template ",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_PIECES, max_size=25).map("".join))
def test_any_text_is_a_template_or_an_error_of_ours(text: str) -> None:
    message = ""
    try:
        parse(text).execute({"A": [1, None, "x"]}, limits=SMALL)
    except TemplateError as exc:
        message = str(exc)

    assert not message or message.startswith("template: ")


def test_a_chat_of_structs_renders() -> None:
    template = parse("{{range .Messages}}<{{.Role}}>{{.Content}}{{end}}")
    data = {"Messages": [message("user", f"m{number}") for number in range(3)]}

    assert template.execute(data) == "<user>m0<user>m1<user>m2"
    assert isinstance(template.root.nodes[0], RangeNode)
