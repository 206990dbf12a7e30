module templatecases

go 1.26
