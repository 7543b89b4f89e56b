package sqlite_test

// childEnv tells a test binary started by a test which of children it is.
const childEnv = "CAREWIRE_STORE_CHILD"

// children are the processes that tests start, by name.
var children = map[string]func(){}
