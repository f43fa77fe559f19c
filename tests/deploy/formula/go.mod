// Says how many pods a formula of a ScaledObject asks for, with the library that KEDA 2.20.2 reads formulas with.
module formula

go 1.24

require github.com/expr-lang/expr v1.17.8
