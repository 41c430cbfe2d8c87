from accounts import views
from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("register/", views.register),
    path("register-and-fail/", views.register_and_fail),
]
