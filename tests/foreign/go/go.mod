module who

go 1.19
