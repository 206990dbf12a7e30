// Runs template cases through the real text/template and writes what came out as JSON.
//
// Usage: main DATA.json CASES.json...
//
// DATA holds named values. A case is [template, name of its data, missingkey option]; the last may be absent. The
// output maps each file of cases to a list with one item per case: a string, or {"error": text}.
// Values that JSON cannot express are objects with one key that begins with a dollar sign; see build.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

type Address struct {
	Street string
	Number int
}

type Person struct {
	Name   string
	Age    int
	Active bool
	Tags   []string
	Home   *Address
	Extra  any
}

func (p Person) Greet(greeting string) string { return greeting + ", " + p.Name }
func (p Person) Older(years int) int          { return p.Age + years }
func (p Person) Scaled(factor float64) string { return fmt.Sprintf("%.2f", float64(p.Age)*factor) }
func (p Person) Choose(first bool) string {
	if first {
		return "first"
	}
	return "second"
}
func (p Person) Join(sep string, parts ...string) string { return strings.Join(parts, sep) }
func (p Person) Any(value any) string                    { return fmt.Sprint(value) }
func (p Person) Fail() (string, error)                   { return "", errors.New("no luck") }
func (p Person) Self() Person                            { return p }

type Reading struct{ Degrees float64 }

func (r Reading) String() string { return fmt.Sprintf("%.1f degrees", r.Degrees) }

type Words []string

func (w Words) String() string { return strings.Join(w, "+") }

type Bag map[string]any

func (b Bag) String() string { return fmt.Sprintf("bag of %d", len(b)) }

var functions = map[string]any{
	"shout": func(text string) string { return strings.ToUpper(text) + "!" },
	"sum": func(numbers ...int) int {
		total := 0
		for _, number := range numbers {
			total += number
		}
		return total
	},
	"refuse": func() (string, error) { return "", errors.New("refused") },
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func strs(value any) []string {
	texts := []string{}
	for _, item := range value.([]any) {
		texts = append(texts, item.(string))
	}
	return texts
}

func person(value any) Person {
	fields := value.(map[string]any)
	made := Person{
		Name:   fields["Name"].(string),
		Age:    int(fields["Age"].(float64)),
		Active: fields["Active"].(bool),
		Tags:   strs(fields["Tags"]),
		Extra:  build(fields["Extra"]),
	}
	if home, ok := fields["Home"].(map[string]any); ok {
		made.Home = &Address{home["Street"].(string), int(home["Number"].(float64))}
	}
	return made
}

func special(key string, value any) any {
	switch key {
	case "$int":
		return int(value.(float64))
	case "$bytes":
		return []byte(value.(string))
	case "$strings":
		return strs(value)
	case "$words":
		return Words(strs(value))
	case "$bag":
		return Bag(build(value).(map[string]any))
	case "$reading":
		return Reading{value.(float64)}
	case "$person":
		return person(value)
	case "$pointer":
		made := person(value)
		return &made
	case "$people":
		people := []Person{}
		for _, item := range value.([]any) {
			people = append(people, person(item))
		}
		return people
	case "$function":
		return functions[value.(string)]
	}
	panic("unknown kind of value: " + key)
}

func build(value any) any {
	switch value := value.(type) {
	case map[string]any:
		made := map[string]any{}
		for key, item := range value {
			if strings.HasPrefix(key, "$") {
				return special(key, item)
			}
			made[key] = build(item)
		}
		return made
	case []any:
		made := []any{}
		for _, item := range value {
			made = append(made, build(item))
		}
		return made
	}
	return value
}

func run(text, option string, data any) any {
	marshal := func(value any) string {
		bytes, _ := json.Marshal(value)
		return string(bytes)
	}
	parsed := template.New("").Option("missingkey=" + option).Funcs(functions).Funcs(template.FuncMap{"json": marshal})
	parsed, err := parsed.Parse(text)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	var out strings.Builder
	if err := parsed.Execute(&out, data); err != nil {
		return map[string]string{"error": err.Error()}
	}
	return out.String()
}

func load(path string, into any) {
	if err := json.Unmarshal(must(os.ReadFile(path)), into); err != nil {
		panic(err)
	}
}

func main() {
	var named map[string]any
	load(os.Args[1], &named)
	results := map[string][]any{}
	for _, path := range os.Args[2:] {
		var cases [][]string
		load(path, &cases)
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		for _, parts := range cases {
			option := "zero"
			if len(parts) > 2 {
				option = parts[2]
			}
			results[name] = append(results[name], run(parts[0], option, build(named[parts[1]])))
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(results); err != nil {
		panic(err)
	}
}
