// Evaluates a formula of KEDA's over values of its triggers: FORMULA NAME=VALUE… prints the number.
//
// KEDA compiles a formula over the names of its triggers, each a float64, and takes what comes out as a float; so does this.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 1 {
		return fmt.Errorf("usage: formula FORMULA NAME=VALUE")
	}
	triggers := map[string]float64{}
	for _, pair := range arguments[1:] {
		name, text, found := strings.Cut(pair, "=")
		value, err := strconv.ParseFloat(text, 64)
		if !found || err != nil {
			return fmt.Errorf("%q is not NAME=NUMBER", pair)
		}
		triggers[name] = value
	}
	program, err := expr.Compile("float("+arguments[0]+")", expr.Env(triggers))
	if err != nil {
		return err
	}
	value, err := expr.Run(program, triggers)
	if err != nil {
		return err
	}
	fmt.Println(value)
	return nil
}
