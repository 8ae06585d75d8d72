module septet

go 1.21
